"""The second pass of hires fix: like the first, without AsynDM, or with a concavity of its own."""

import pictures
import pytest
from requests_table import BASE, SMALL, switched_on

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

HIRES = {
    **BASE,
    **SMALL,
    "enable_hr": True,
    "hr_scale": 2,
    "hr_upscaler": "Latent",
    "denoising_strength": 0.7,
    "sampler_name": "DPM++ 2M",
}


def second_pass(host, request=HIRES, **settings):
    return host.make(switched_on(request, {"targets": "cat", **settings}))


def test_off_leaves_the_second_pass_to_the_host(host):
    """With a first pass that changes nothing the picture is the host's own, which "same"
    changes."""
    usual = host.make(HIRES).pictures
    still = {"concavity": 0.0, "second_concavity": 0.8}
    assert pictures.same_pixels(second_pass(host, second_pass="off", **still).pictures[0], usual[0])
    assert pictures.same_pixels(second_pass(host, second_pass="same", **still).pictures[0], usual[0])
    own = second_pass(host, second_pass="own concavity", **still)
    assert not pictures.same_pixels(own.pictures[0], usual[0])
    assert own.messages == []
    assert "AsynDM second pass: own concavity, AsynDM second pass concavity: 0.8" in own.infotext


def test_the_first_pass_goes_by_the_first_concavity(host):
    same = second_pass(host, concavity=0.7)
    own = second_pass(host, concavity=0.7, second_pass="own concavity", second_concavity=0.7)
    other = second_pass(host, concavity=0.7, second_pass="own concavity", second_concavity=0.2)
    off = second_pass(host, concavity=0.7, second_pass="off")
    none = second_pass(host, concavity=0.7, second_pass="own concavity", second_concavity=0.0)
    assert pictures.same_pixels(same.pictures[0], own.pictures[0])
    assert pictures.same_pixels(off.pictures[0], none.pictures[0])
    assert not pictures.same_pixels(same.pictures[0], other.pictures[0])
    assert not pictures.same_pixels(same.pictures[0], off.pictures[0])


def test_a_targets_own_concavity_holds_in_both_passes(host):
    made = [
        second_pass(host, targets="cat:0.6", second_pass="own concavity", second_concavity=k) for k in (0.0, 1.0)
    ]
    assert pictures.same_pixels(made[0].pictures[0], made[1].pictures[0])


def test_off_with_the_target_in_the_second_prompt_only(host):
    request = {**HIRES, "prompt": "a house", "hr_prompt": "a house with a cat"}
    answer = second_pass(host, request, second_pass="off")
    assert ['"cat" not found' in message for message in answer.messages] == [True]
    assert "AsynDM second pass" not in answer.infotext
