"""Whole runs on Stable Diffusion 3's transformer."""

from __future__ import annotations

import k_diffusion.sampling as k
import pytest
import torch
from joint_checks import CHANNELS, CONTEXT, POOLED, random_weights
from stand_ins import FLOW, Noise, flow_sigmas, hooks_on, words
from test_families import assert_constant_in_cells
from torch import Tensor

from asyndm_lib import models
from asyndm_lib.clock.schedule import Schedule
from asyndm_lib.hosts.standalone.mmdit import MMDiT
from asyndm_lib.models import sd3
from asyndm_lib.prompt.prompt_targets import PromptTargets
from asyndm_lib.prompt.target_list import parse_targets
from asyndm_lib.run.host import Descent, Host
from asyndm_lib.run.run import Run
from asyndm_lib.samplers.table import SAMPLERS
from asyndm_lib.settings.settings import Settings

STEPS, TOKENS = 6, 7


class FlowHost:
    """A host of a small rectified flow, with guidance, and one call of the model for both halves.
    """

    def __init__(self, prompts: tuple[str, ...] = ("a cat and a dog",) * 2, size: tuple[int, int] = (7, 9)):
        sizes = {"head_size": 16, "qk_norm": "rms", "dual_blocks": 2, "pos_embed_max_size": 16}
        self.model = random_weights(MMDiT(4, 64, CONTEXT, POOLED, CHANNELS, **sizes), torch.float32)
        self.prompts, images = prompts, len(prompts)
        generator = torch.Generator().manual_seed(3)
        self.context = torch.randn(2 * images, TOKENS, CONTEXT, generator=generator)
        self.y = torch.randn(2 * images, POOLED, generator=generator)
        self.sigmas = flow_sigmas(STEPS, torch.float32)
        self.x = torch.randn(images, CHANNELS, *size, generator=generator)
        self.run: Run | None = None

    def predict(self, x: Tensor, sigma: Tensor) -> Tensor:
        rows, images = torch.cat([x, x]), len(x)
        s = sigma.to(x).reshape(-1, 1, 1, 1).expand(len(rows), 1, 1, 1)
        t = s.flatten() * 1000
        if self.run is None:
            denoised = rows - s * self.model(rows, t, self.context, self.y)
        else:
            names = [(image, part) for part in (0, None) for image in range(images)]
            with self.run.rows(names) as here:
                velocity = self.model(rows, t, self.context, self.y)
            denoised = rows - torch.where(here.lagging, here.sigma, s) * velocity
        conditional, unconditional = denoised.chunk(2)
        return unconditional + 3 * (conditional - unconditional)

    def start(self, targets: str = "cat", observers=(), **settings) -> Run:
        host = Host(
            model=self.model,
            descents=[Descent(Schedule(self.sigmas[:-1], *FLOW), list(self.sigmas))],
            predict=self.predict,
            step=lambda: 0,
            unconditional=lambda: self.x,
            randn_like=Noise().like,
            callback=None,
            progress=iter,
            rehearsal=Noise().kept,
            steady=lambda: True,
        )
        found = PromptTargets(parse_targets(targets), [[[(0, prompt)]] for prompt in self.prompts], words)
        whole = settings.get("whole_picture", False)
        self.run = Run(host, Settings(targets=targets, **settings), None if whole else found, self.x, observers)
        return self.run

    def sampled(self, sampler: str, **settings) -> Tensor:
        with self.start(**settings) as run:
            return run.sample(SAMPLERS[sampler], self.x)

    def own(self, sampler: str, sigmas: Tensor | None = None) -> Tensor:
        """The picture without AsynDM."""
        self.run = None
        denoise = lambda x, sigma, **_: self.predict(x, sigma[:1])  # noqa: E731
        with torch.no_grad():
            return getattr(k, sampler)(denoise, self.x, self.sigmas if sigmas is None else sigmas, disable=True)


@pytest.mark.parametrize("sampler", ["sample_euler", "sample_dpmpp_2m", "sample_heun"])
@pytest.mark.parametrize("settings", [{"concavity": 0.0}, {"threshold": 4.0}, {"targets": "unicorn"}])
def test_where_nothing_lags_the_latent_is_the_models_own_to_the_bit(sampler, settings):
    settings = {"mask_timing": "static" if "threshold" in settings else "lagged", **settings}
    assert torch.equal(FlowHost().sampled(sampler, **settings), FlowHost().own(sampler))


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_a_picture_whose_prompt_holds_no_target_keeps_its_bits_beside_one_that_lags(timing):
    host = FlowHost(("a bird", "a cat and a dog"))
    out, own = host.sampled("sample_euler", mask_timing=timing), host.own("sample_euler")
    assert torch.equal(out[0], own[0])
    assert (out[1] - own[1]).abs().max() > 0.01


@pytest.mark.parametrize("sampler", ["sample_euler", "sample_dpmpp_2m"])
def test_a_whole_picture_that_lags_is_the_models_own_over_the_levels_that_it_has(sampler):
    """Its text lags with it: no level is mixed."""
    host, seen = FlowHost(), []
    with host.start(observers=[seen.append], whole_picture=True, concavity=0.7) as run:
        out = run.sample(SAMPLERS[sampler], host.x)
    sigmas = torch.stack([*(step.sigma.map[0, 0, 0, 0] for step in seen), torch.tensor(0.0)])
    assert (sigmas[1:-2] > host.sigmas[1:-2]).all()
    torch.testing.assert_close(out, host.own(sampler, sigmas), rtol=1e-3, atol=1e-3)
    assert (out - host.own(sampler)).abs().max() > 0.05


@pytest.mark.parametrize("curve", ["quadratic", "exponential"])
@pytest.mark.parametrize("sampler", ["sample_euler", "sample_dpmpp_2m", "sample_heun", "sample_dpm_2_ancestral"])
def test_every_step_has_one_noise_level_in_each_patch(sampler, curve):
    host, seen = FlowHost(), []
    with host.start(observers=[seen.append], mask_timing="fresh", curve=curve) as run:
        out = run.sample(SAMPLERS[sampler], host.x)
    assert out.shape == host.x.shape
    assert out.isfinite().all()
    assert seen[0].sigma.scalar == 1
    assert any(len(step.sigma.map.unique()) > 1 for step in seen)
    assert any(step.maps is not None and step.maps.shape == (2, 1, 4, 5) for step in seen)
    for step in seen:
        assert_constant_in_cells(step.sigma.map)
        if step.mask is not None:
            assert_constant_in_cells(step.mask.related)


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear"])
def test_a_whole_run_in_the_plain_forms_makes_the_same_latent(timing, curve, monkeypatch):
    outs = []
    for family in (sd3.PLAIN, sd3.FAMILY):
        monkeypatch.setattr(models, "FAMILIES", (family,))
        outs.append(FlowHost().sampled("sample_euler", mask_timing=timing, curve=curve))
    torch.testing.assert_close(*outs, rtol=1e-3, atol=1e-3)
    assert (outs[0] - FlowHost().own("sample_euler")).abs().max() > 0.05


@pytest.mark.parametrize("rule", sd3.RULES)
def test_either_rule_of_the_token_maps_makes_masks(rule, monkeypatch):
    monkeypatch.setattr(models, "FAMILIES", (sd3.MMDiT(token_maps_of=sd3.RULES[rule]),))
    host, seen = FlowHost(), []
    with host.start(observers=[seen.append], mask_timing="fresh") as run:
        out = run.sample(SAMPLERS["sample_euler"], host.x)
    assert out.isfinite().all()
    assert not run.problems
    shares = [step.mask.related.float().mean() for step in seen if step.mask is not None]
    assert max(shares) > 0
    assert all(share < 0.95 for share in shares[1:])
    assert all((step.maps >= 0).all() for step in seen if step.maps is not None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_no_hook_stays_after_a_run_on_any_path(error):
    host = FlowHost()
    own = host.own("sample_euler")
    with host.start() as run:
        assert hooks_on(host.model) > 0
        run.sample(SAMPLERS["sample_euler"], host.x)
    assert hooks_on(host.model) == 0

    def fail(*_: object) -> None:
        raise error

    for block in (host.model.joint_blocks[1], host.model.final_layer, host.model.x_embedder):
        handle = block.register_forward_hook(fail)
        with pytest.raises(error), host.start() as run:
            run.sample(SAMPLERS["sample_euler"], host.x)
        handle.remove()
        assert hooks_on(host.model) == 0
        assert host.run.evaluating is None
    assert torch.equal(host.own("sample_euler"), own)


def test_a_run_within_a_run_leaves_both_pictures_as_they_are():
    """A callback may make a picture with the same model."""
    host, inner, made = FlowHost(), FlowHost(), []
    inner.model = host.model
    expected, expected_inner = FlowHost().sampled("sample_euler"), FlowHost().sampled("sample_dpmpp_2m")

    def between(seen: object) -> None:
        if not made:
            made.append(inner.sampled("sample_dpmpp_2m"))

    out = host.sampled("sample_euler", observers=[between])
    assert torch.equal(made[0], expected_inner)
    assert torch.equal(out, expected)
    assert hooks_on(host.model) == 0
