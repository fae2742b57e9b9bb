"""The infotext holds what made the picture, and makes it again."""

import pictures
import pytest
from family import HOST
from requests_table import BASE, plot, switched_on

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

SLOWED = "AsynDM slowed"
ALL = {
    "targets": "cat, dog:0.9, red heart#1",
    "concavity": 0.35,
    "curve": "piecewise linear",
    "mask_timing": "static",
    "threshold": 1.25,
    "whole_picture": False,
    "second_pass": "own concavity",
    "second_concavity": 0.2,
    "normalisation": "by level",
}
CASES = {
    "defaults": {"targets": "cat"},
    "all": ALL,
    "whole picture": {"whole_picture": True},
    "whole picture and targets": {"whole_picture": True, "targets": "cat", "curve": "exponential"},
    "line break": {"targets": "cat\ndog:0.9"},
    "line break of Windows": {"targets": "cat\r\ndog:0.9\t"},
    "quotation marks": {"targets": 'cat, "zebra", \\dog'},
    "like an infotext": {"targets": "cat, Steps, Seed, dog"},
    "zeros": {"targets": "cat", "threshold": 0.0},
}


def entries(text: str) -> dict[str, str]:
    """The settings in an infotext; what they did is told apart."""
    line = text.splitlines()[-1]
    own = dict(part.split(": ", 1) for part in line.split(", ") if part.startswith("AsynDM"))
    assert bool(own) == bool(own.pop(SLOWED, None))
    return own


@pytest.mark.parametrize("case", CASES)
def test_an_infotext_sent_back_makes_the_same_file(case, host):
    first = host.make(switched_on(BASE, CASES[case]))
    text = pictures.infotext(first.pictures[0])
    again = host.make({"infotext": text})
    assert again.status == 200, again.info
    assert pictures.infotext(again.pictures[0]) == text
    assert again.pictures == first.pictures


def test_img2img(host, start_picture):
    """The host takes none of an img2img request's own fields from an infotext, but all of the
    scripts'."""
    request = {**BASE, "init_images": [start_picture], "denoising_strength": 0.7}
    settled = host.make(switched_on(request, ALL), "img2img")
    first = host.make(switched_on(request, ALL), "img2img")
    again = host.make({**request, "infotext": settled.infotext}, "img2img")
    assert again.pictures == first.pictures


def test_the_requests_own_arguments_win(host):
    text = host.make(switched_on(BASE, ALL)).infotext
    expected = host.make(switched_on(BASE, {"targets": "dog"}))
    answer = host.make(switched_on({"infotext": text}, {"targets": "dog"}))
    assert answer.pictures == expected.pictures


def test_an_infotext_without_asyndm_switches_nothing_on(host, reference):
    bare = reference(BASE).result()
    assert host.make({"infotext": bare.infotext}).pictures == bare.pictures


def test_only_what_is_not_the_default_is_written(host):
    assert entries(host.make(BASE).infotext) == {}
    assert entries(host.make(switched_on(BASE)).infotext) == {"AsynDM targets": "cat"}
    assert entries(host.make(switched_on(BASE, {"whole_picture": True})).infotext) == {"AsynDM whole picture": "True"}
    settings = {**ALL, "targets": "cat"}
    assert entries(host.make(switched_on(BASE, settings)).infotext) == {
        "AsynDM targets": "cat",
        "AsynDM concavity": "0.35",
        "AsynDM curve": "piecewise linear",
        "AsynDM mask timing": "static",
        "AsynDM mask threshold": "1.25",
        "AsynDM second pass": "own concavity",
        "AsynDM second pass concavity": "0.2",
        "AsynDM normalisation": "by level",
    }


def test_every_picture_of_a_job_has_it(host):
    answer = host.make(switched_on({**BASE, "batch_size": 2, "n_iter": 2}))
    assert all("AsynDM targets: cat" in text for text in answer.info["infotexts"])
    assert all("AsynDM targets: cat" in pictures.infotext(png) for png in answer.pictures)


def test_cells_of_a_grid_do_not_inherit_it(host):
    """The host's X/Y/Z plot shares one dictionary of entries among its cells."""
    names = next(s for s in host.get("/sdapi/v1/script-info") if s["name"] == "x/y/z plot" and not s["is_img2img"])
    labels, (refused, *_) = names["args"][0]["choices"], HOST.refused
    answer = host.make(plot(labels, switched_on(BASE), x=("Sampler", f"Euler, {refused}, DPM++ 2M")))
    assert answer.status == 200, answer.info
    marked = ["AsynDM" in text for text in answer.info["infotexts"][-3:]]
    assert marked == [True, False, True], answer.info["infotexts"]
