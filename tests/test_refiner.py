"""A host that goes on with another model in the middle of a run, as with a refiner."""

from __future__ import annotations

import importlib
import inspect
import sys
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import k_diffusion.sampling as k_diffusion
import numpy as np
import pytest
import torch
from stand_ins import AttendingUNet, WatchedRun, hooks_on, make_run, tiny_unet, uniform_sigmas, words
from test_run import CAT_AND_DOG, HEIGHT, WHERE, latent, ldm_run, ldm_sizes, masks_of, model, sigma_maps, target_maps
from torch import Tensor, nn

from asyndm_lib import hosts
from asyndm_lib.errors import Unsupported
from asyndm_lib.prompt.prompt_targets import PromptTargets
from asyndm_lib.prompt.target_list import parse_targets
from asyndm_lib.run.run import Run
from asyndm_lib.samplers.table import SAMPLERS

N, AT = 9, 4
TARGETS = "cat:0.3, dog:0.7"
# The refiner's text encoder has two more tokens before each prompt.
ELSEWHERE = [[[(row, at + 2) for row, at in tokens] for tokens in image] for image in WHERE]


class Blind(AttendingUNet):
    """A UNet that reads no prompt."""

    def __init__(self):
        super().__init__()
        del self.input_blocks[1].attn2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.time_embed(x.flatten(1)), x


def targets_elsewhere(targets: str = TARGETS) -> PromptTargets:
    prompts = [[[(10**6, f"now then {prompt}")]] for prompt in CAT_AND_DOG]
    return PromptTargets(parse_targets(targets), prompts, words)


def switching(run: Run, at: int, unet: nn.Module, targets: PromptTargets | None) -> None:
    """Let the host load another model at the beginning of evaluation ``at``, as A1111 does. A
    rehearsal keeps its model."""
    predict, evaluations = run.host.predict, iter(range(1000))

    def refining(x: Tensor, sigma: Tensor) -> Tensor:
        if not run.rehearsing and next(evaluations) == at:
            run.move(unet, targets)
        return predict(x, sigma)

    run.host.predict = refining


def refined(timing: str, sampler: str = "sample_euler", at: int = AT, **settings) -> tuple[WatchedRun, AttendingUNet]:
    sigmas, other = uniform_sigmas(N), AttendingUNet(seed=1)
    x = latent(2) * sigmas[0]
    settings = {"targets": TARGETS, "mask_timing": timing, **settings}
    with make_run(x, sigmas, model, prompts=CAT_AND_DOG, **settings) as run:
        switching(run, at, other, targets_elsewhere())
        run.sample(SAMPLERS[sampler], x)
        assert run.unet is other
        assert hooks_on(run.host.model) == 0
        assert hooks_on(other) > 0
    assert hooks_on(other) == 0
    assert not run.problems
    return run, other


@pytest.mark.parametrize("curve", ["quadratic", "exponential"])
@pytest.mark.parametrize("timing", ["lagged", "fresh"])
@pytest.mark.parametrize("at", [0, AT, N - 1])
def test_the_clock_goes_on_with_the_other_models_maps(timing, curve, at):
    run, _ = refined(timing, at=at, curve=curve)
    maps = np.concatenate([target_maps(run.attended[:at], WHERE), target_maps(run.attended[at:], ELSEWHERE)])
    assert len(maps) == N
    steps = [masks_of(one, [0.3, 0.7], 1.0) for one in maps[:-1]]
    whole = np.broadcast_to(np.array([0.7, 0.7])[:, None, None], steps[0].shape)
    masks = steps if timing == "fresh" else [whole, *steps[:-1]]
    expected = sigma_maps(curve, masks, uniform_sigmas(N)[:-1].numpy())
    np.testing.assert_allclose(torch.stack(run.seen).numpy(), expected, rtol=1e-7)


def test_a_static_mask_outlasts_the_model_that_it_was_read_from():
    run, _ = refined("static")
    masks = [masks_of(target_maps(run.rehearsed, WHERE).mean(axis=0), [0.3, 0.7], 1.0)] * (N - 1)
    expected = sigma_maps("quadratic", masks, uniform_sigmas(N)[:-1].numpy())
    np.testing.assert_allclose(torch.stack(run.seen).numpy(), expected, rtol=1e-7)


def test_a_model_that_comes_in_a_second_evaluation_leaves_the_steps_maps_as_they_are():
    """Heun's step has been read from the first model when the other one comes, at the end of the
    step."""
    run, _ = refined("fresh", "sample_heun", at=2 * AT + 1)
    firsts = run.attended[::2]
    maps = np.concatenate([target_maps(firsts[: AT + 1], WHERE), target_maps(firsts[AT + 1 :], ELSEWHERE)])
    expected = sigma_maps("quadratic", [masks_of(one, [0.3, 0.7], 1.0) for one in maps[:-1]], uniform_sigmas(N)[:-1])
    np.testing.assert_allclose(torch.stack(run.seen).numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("settings", [{"targets": "cat, dog"}, {"whole_picture": True}])
def test_moving_to_the_model_that_is_there_changes_no_bit(settings):
    sigmas, outs = uniform_sigmas(N, torch.float32), []
    x = latent(2).float() * sigmas[0]
    for again in (False, True):
        with make_run(x, sigmas, model, prompts=CAT_AND_DOG, **settings) as run:
            unet, hooks = run.host.model, hooks_on(run.host.model)
            assert hooks > 0
            if again:
                switching(run, AT, unet, run.targets)
            outs.append(run.sample(SAMPLERS["sample_dpmpp_2m"], x))
            assert hooks_on(unet) == hooks
        assert hooks_on(unet) == 0
    assert torch.equal(*outs)


def test_a_whole_picture_goes_on_with_a_model_that_reads_no_prompt():
    sigmas = uniform_sigmas(N)
    x = latent(1) * sigmas[0]
    with make_run(x, sigmas, model, whole_picture=True) as run:
        run.move(Blind(), None)
        assert hooks_on(run.host.model) == 0
        run.sample(SAMPLERS["sample_euler"], x)
    np.testing.assert_allclose(
        torch.stack(run.seen).numpy(),
        sigma_maps("quadratic", [np.full((1, HEIGHT, x.shape[-1]), 0.5)] * (N - 1), sigmas[:-1].numpy()),
        rtol=1e-9,
    )


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_after_the_move_leaves_no_hook_on_either(error):
    sigmas, other = uniform_sigmas(N), AttendingUNet(seed=1)
    x = latent(2) * sigmas[0]

    def failing(module, arguments, output):
        raise error("stop")

    other.input_blocks[1].attn2.to_k.register_forward_hook(failing)
    run = make_run(x, sigmas, model, prompts=CAT_AND_DOG, targets=TARGETS)
    switching(run, AT, other, targets_elsewhere())
    with pytest.raises(error, match="stop"), run:
        run.sample(SAMPLERS["sample_euler"], x)
    assert hooks_on(run.host.model) == 0
    assert hooks_on(other) == 1, "only the test's own"


@pytest.mark.parametrize(("unet", "said"), [(nn.Linear(1, 1), "no time_embed"), (Blind(), "cross-attention")])
def test_a_model_of_another_kind_is_unsupported_and_nothing_is_left_on_either(unet, said):
    sigmas = uniform_sigmas(N)
    x = latent(2) * sigmas[0]
    with make_run(x, sigmas, model, prompts=CAT_AND_DOG, targets=TARGETS) as run:
        switching(run, AT, unet, targets_elsewhere())
        with pytest.raises(Unsupported, match=said):
            run.sample(SAMPLERS["sample_euler"], x)
        assert hooks_on(run.host.model) == hooks_on(unet) == 0
        assert run.evaluating is None
    assert hooks_on(run.host.model) == hooks_on(unet) == 0


@pytest.mark.parametrize("timing", ["lagged", "static"])
def test_on_ldms_own_models_an_image_without_the_target_is_the_hosts_own_to_the_bit(timing):
    sigmas, x = ldm_sizes(2)
    own, run = ldm_run(["a bird", "a cat"], sigmas, x, mask_timing=timing)
    first, other = own.unet, tiny_unet(seed=1)

    def refining(x: Tensor, sigma: Tensor) -> Tensor:
        """The host's own switch, with the run or without."""
        rehearsing = own.run is not None and own.run.rehearsing
        if own.evaluations - before == 2 and not rehearsing:
            own.unet = other
            if own.run is not None:
                own.run.move(other, run.targets)
        return own.predict(x, sigma)

    run.host.predict = refining
    with run:
        before = len(sigmas) - 1 if timing == "static" else 0
        out = run.sample(SAMPLERS["sample_euler"], x)
        assert hooks_on(first) == 0 < hooks_on(other)
    assert hooks_on(other) == 0
    own.run, own.unet, before = None, first, own.evaluations
    plain = k_diffusion.sample_euler(lambda x, s: refining(x, s[0]), x, sigmas, disable=True)
    assert torch.equal(out[0], plain[0])
    assert (out[1] - plain[1]).abs().mean() > 1e-3


def test_the_other_model_evaluates_each_image_at_its_own_level():
    sigmas, x = ldm_sizes(2)
    own, run = ldm_run(["a bird", "a cat"], sigmas, x, concavity=1.0)
    with run:
        steps = iter(run)
        next(steps).predict(x)
        run.advance()
        step = next(steps)
        [level] = step.sigma.map[1].unique()
        own.unet = tiny_unet(seed=1)
        run.move(own.unet, run.targets)
        out = step.predict(x)
    own.run = None
    expected = own.predict(x, level)
    assert torch.equal(out[0], own.predict(x, step.sigma.scalar)[0])
    torch.testing.assert_close(out[1], expected[1], rtol=1e-4, atol=1e-4 * x.std().item())


@pytest.fixture
def hosts_call(request, monkeypatch):
    """``Call`` of a host as in a WebUI, without a WebUI."""
    before = {*sys.modules}
    for name in ("modules", "backend", "ldm_patched", *HOSTS_OWN):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    package = ModuleType(f"asyndm_lib.hosts.{request.param}")
    package.__path__ = [str(Path(hosts.__file__).parent / request.param)]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    yield importlib.import_module(f"asyndm_lib.hosts.{request.param}.call")
    for name in {*sys.modules} - before:
        if name.startswith("asyndm_lib.hosts"):
            del sys.modules[name]


HOSTS_OWN = [
    *(f"modules.{name}" for name in ("sd_samplers_cfg_denoiser", "shared", "sd_samplers", "script_callbacks")),
    *(f"modules.{name}" for name in ("prompt_parser", "extra_networks", "sd_unet", "images")),
    *("backend.text_processing", "ldm_patched.modules", "ldm_patched.modules.model_sampling"),
]


@pytest.mark.parametrize("hosts_call", ["a1111", "forge_family"], indirect=True)
def test_a_refiner_that_is_refused_leaves_no_way_back(hosts_call, monkeypatch):
    """The host has loaded it by then, and would make all steps with it."""

    def refuse(sd_model: object) -> None:
        raise Unsupported("models of this kind are not supported")

    monkeypatch.setattr(hosts_call, "check_model", refuse)
    call = object.__new__(hosts_call.Call)
    call._p, call._read_targets = MagicMock(), lambda: None
    sigmas, x = ldm_sizes(1)
    own, run = ldm_run(["a cat"], sigmas, x)
    given = {"denoising": ExitStack(), "engine": ExitStack(), "run": run, "rows": None}
    given["update_inner_model"] = MagicMock()
    wanted = inspect.signature(call._moved).parameters
    with run:
        assert (run.moved, hooks_on(own.unet) > 0) == (False, True)
        with pytest.raises(Unsupported):
            call._moved(**{name: given[name] for name in wanted})
        assert (run.moved, hooks_on(own.unet)) == (True, 0)
