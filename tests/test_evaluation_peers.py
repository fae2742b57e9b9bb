"""Each peer's arithmetic against a direct computation from its paper."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from stand_ins import hooks_on, make_run, tiny_unet, uniform_sigmas

from asyndm_lib.evaluation.peers import attend_and_excite, s_cfg
from asyndm_lib.evaluation.peers.attend_and_excite import Excitement
from asyndm_lib.evaluation.peers.cfg import Guidance
from asyndm_lib.evaluation.peers.s_cfg import SemanticGuidance
from asyndm_lib.evaluation.peers.seg import SmoothedGuidance
from asyndm_lib.evaluation.peers.z_sampling import zigzag
from asyndm_lib.samplers.ddim import ddim, ddim_cfgpp

X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
PUSH = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
SYNCHRONOUS = {"whole_picture": True, "concavity": 0.0}


def eps(x, sigma, scale):
    """A model whose guided prediction depends on the latent, the noise level and the guidance
    scale."""
    return torch.tanh(x) + 0.1 * sigma.log() + scale * 0.05 * PUSH


def abar(sigma):
    return 1 / (1 + sigma**2)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cfg():
    conditional, unconditional = random(2, 4, 8, 8), random(2, 4, 8, 8, seed=1)
    guided = Guidance(5.0).combine((conditional, unconditional))
    assert torch.allclose(guided, -4 * unconditional + 5 * conditional, atol=1e-5)


# SEG


def test_seg_adds_both_differences():
    c, u, blurred = (random(2, 4, 8, 8, seed=seed) for seed in range(3))
    assert torch.allclose(
        SmoothedGuidance(5.0).combine((c, u, blurred)), u + 5 * (c - u) + 3 * (c - blurred), atol=1e-5
    )


def test_seg_blurs_the_queries_of_the_third_copy_alone():
    unet, guidance = tiny_unet(), SmoothedGuidance(5.0)
    x, t, context = random(6, 4, 8, 8), torch.full((6,), 500.0), random(6, 7, 8)
    plain = unet(x, t, context=context)
    before = hooks_on(unet)
    with guidance.attached(unet):
        assert hooks_on(unet) == before + 1
        smoothed = unet(x, t, context=context)
    assert hooks_on(unet) == before
    assert torch.equal(smoothed[:4], plain[:4])

    attention = unet.middle_block[1].transformer_blocks[0].attn1
    seen = []
    handle = attention.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    with guidance.attached(unet):
        unet(x, t, context=context)
    handle.remove()
    h, output = (tensor[4:] for tensor in seen[0])
    # The paper's limit: every query is the mean query, so that all pixels attend alike.
    heads = attention.heads
    q, k, v = (
        tensor.unflatten(-1, (heads, -1)).transpose(1, 2)
        for tensor in (attention.to_q(h).mean(1, keepdim=True), attention.to_k(h), attention.to_v(h))
    )
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(dim=-1)
    wanted = attention.to_out((weights @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(output, wanted.expand_as(output), atol=1e-5)
    assert not torch.allclose(smoothed[4:], plain[4:], atol=1e-4)


# Z-Sampling


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_z_sampling_is_the_papers_algorithm(eta):
    sigmas, strong = uniform_sigmas(5), 5.0
    guidance = Guidance(strong)
    run = make_run(X, sigmas, lambda x, sigma: eps(x, sigma, guidance.scale), **SYNCHRONOUS)
    with run:
        made = run.sample(zigzag, X, guidance=guidance, eta=eta)

    def step(x, noise, now, to):  # DDIM without noise, down or up
        a, b = abar(now), abar(to)
        return b.sqrt() * (x - (1 - a).sqrt() * noise) / a.sqrt() + (1 - b).sqrt() * noise

    x, again = X, make_run(X, sigmas, lambda x, sigma: x, **SYNCHRONOUS)
    for i, (now, to) in enumerate(itertools.pairwise(sigmas)):
        if i < 4:
            below = step(x, eps(x, now, strong), now, to)
            x = step(below, eps(below, now, 0.0), to, now)
        a, b, e = abar(now), abar(to), eps(x, now, strong)
        share = eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
        noise = again.host.randn_like(x)
        x = b.sqrt() * (x - (1 - a).sqrt() * e) / a.sqrt() + (1 - b - share**2).clamp(min=0).sqrt() * e + share * noise
    assert torch.allclose(made, x, atol=1e-9)
    assert guidance.scale == strong


def test_without_a_difference_of_guidances_z_sampling_nearly_goes_back_and_forth():
    """The way up takes the noise that it came down with. Only the change of the noise between both
    points remains."""
    sigmas = uniform_sigmas(40)
    constant = make_run(X, sigmas, lambda x, sigma: PUSH, **SYNCHRONOUS)
    with constant:
        zig = constant.sample(zigzag, X, guidance=Guidance(1.0))
    with constant:
        straight = constant.sample(ddim, X)
    assert torch.allclose(zig, straight, atol=1e-9)


def test_z_sampling_goes_with_lagging_pixels():
    guidance = Guidance(5.0)
    run = make_run(
        X, uniform_sigmas(6), lambda x, s: eps(x, s, guidance.scale), targets="cat", concavity=0.7, mask_timing="fresh"
    )
    with run:
        made = run.sample(zigzag, X, guidance=guidance)
    assert made.isfinite().all()
    assert any((level != level[0, 0, 0, 0]).any() for level in run.seen)


# CFG++


def test_cfgpp_renoises_with_the_unconditional_prediction():
    """The paper's algorithm 2: denoise by the interpolation, go on with the unconditional noise."""
    sigmas, scale = uniform_sigmas(5), 0.4

    def unconditional(x, sigma):
        return 0.8 * torch.tanh(x) + 0.1 * sigma.log()

    run = make_run(X, sigmas, lambda x, s: unconditional(x, s) + scale * 0.3 * PUSH, **SYNCHRONOUS)
    run.unconditional_of = lambda x, prediction: prediction - scale * 0.3 * PUSH
    with run:
        made = run.sample(ddim_cfgpp, X)
    x = X
    for now, to in itertools.pairwise(sigmas):
        a, b = abar(now), abar(to)
        u = unconditional(x, now)
        clean = (x - (1 - a).sqrt() * (u + scale * 0.3 * PUSH)) / a.sqrt()
        x = b.sqrt() * clean + (1 - b).sqrt() * u
    assert torch.allclose(made, x, atol=1e-9)


# S-CFG


def layer(side, tokens, seed, batch=2):
    n = side * side
    return {
        "attn1": random(2 * batch, n, n, seed=seed).softmax(-1),
        "attn2": (3 * random(2 * batch, n, tokens, seed=seed + 1)).softmax(-1),
    }


def test_scfg_cuts_regions_as_the_paper():
    # The coarsest does not count.
    layers = [layer(8, 5, 0), layer(4, 5, 10), layer(8, 5, 20), layer(2, 5, 30)]
    regions, foreground = s_cfg.cut(layers)
    tokens, fore = torch.zeros(2, 5, 8, 8), torch.zeros(2, 2, 8, 8)
    line = torch.tensor([math.exp(-2.0), 1.0, math.exp(-2.0)])
    kernel = torch.outer(line, line) / line.sum() ** 2
    for one in layers[:3]:
        s = one["attn1"]
        completed = sum(torch.matrix_power(s, power) for power in (1, 2, 3, 4)) / 4 @ one["attn2"]
        side = math.isqrt(s.shape[1])
        maps = completed.transpose(1, 2).reshape(4, 5, side, side)
        if side < 8:
            maps = F.interpolate(maps, scale_factor=8 / side, mode="bilinear")
        maps = F.conv2d(F.pad(maps.reshape(20, 1, 8, 8), (1,) * 4, mode="reflect"), kernel[None, None]).view(4, 5, 8, 8)
        tokens += maps[:2] / maps[:2].mean((2, 3), keepdim=True)
        start, rest = maps[2:, :1], maps[2:, 1:].sum(1, keepdim=True)
        fore += torch.cat([m / m.mean((2, 3), keepdim=True) for m in (start, rest)], 1)
    assert torch.equal(regions, tokens.argmax(1))
    assert torch.equal(foreground, fore[:, 1] > fore[:, 0])


def test_scfg_brings_every_region_to_the_foregrounds_strength():
    delta = torch.ones(1, 4, 8, 8)
    delta[..., 4:] = 2.0  # strengths 2 and 4
    regions = torch.zeros(1, 8, 8, dtype=torch.long)
    regions[..., 4:] = 3
    foreground = torch.zeros(1, 8, 8, dtype=torch.bool)
    foreground[..., 4:] = True
    rate = s_cfg.factors(delta, regions, foreground, 5.0)
    assert torch.allclose(rate[..., :3], torch.full((1, 1, 8, 3), 2.0), atol=1e-5)
    assert torch.allclose(rate[..., 5:], torch.ones(1, 1, 8, 3), atol=1e-5)
    assert ((rate > 1) & (rate < 2))[..., 3:5].all()  # smoothed where the regions meet
    weak = s_cfg.factors(delta, regions, ~foreground, 5.0)
    assert torch.allclose(weak[..., 5:], torch.full((1, 1, 8, 3), s_cfg.LEAST), atol=1e-5)
    capped = s_cfg.factors(delta, regions, foreground, 10.0)
    assert torch.allclose(capped[..., :3], torch.full((1, 1, 8, 3), 1.5), atol=1e-5)
    none = s_cfg.factors(delta, regions, torch.zeros_like(foreground), 5.0)
    assert torch.allclose(none, torch.ones_like(none), atol=1e-5)


def test_scfg_reads_the_unets_maps():
    unet, guidance = tiny_unet(attention_resolutions=[2, 1]), SemanticGuidance(5.0)
    x, t, context = random(4, 4, 16, 16), torch.full((4,), 500.0), random(4, 7, 8)
    plain, before = unet(x, t, context=context), hooks_on(unet)
    maps = s_cfg._AttentionMaps()
    with maps.attached(unet):
        unet(x, t, context=context)
        layers = maps.take()
    block = unet.input_blocks[1][1].transformer_blocks[0]
    h = unet.input_blocks[1][0](unet.input_blocks[0][0](x), unet.time_embed(_embedding(unet, t)))
    spatial = unet.input_blocks[1][1]
    tokens = spatial.proj_in(spatial.norm(h)).flatten(2).transpose(1, 2)
    normed = block.norm1(tokens)
    q, k = (part(normed).unflatten(-1, (2, -1)).transpose(1, 2) for part in (block.attn1.to_q, block.attn1.to_k))
    wanted = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1).mean(1)
    assert torch.allclose(layers[0]["attn1"], wanted, atol=1e-5)
    assert [tuple(one["attn2"].shape) for one in layers[:1]] == [(4, 256, 7)]
    with guidance.attached(unet):
        output = unet(x, t, context=context)
        guided = guidance.combine(output.chunk(2))
    assert hooks_on(unet) == before
    assert torch.equal(output, plain)
    c, u = plain.chunk(2)
    rate = (guided - u) / (5.0 * (c - u))
    assert rate.min() > 0.7
    assert rate.max() < 3.1


def _embedding(unet, t):
    from ldm.modules.diffusionmodules.util import timestep_embedding

    return timestep_embedding(t, unet.model_channels)


# Attend-and-Excite

CONTEXT = random(2, 7, 8, seed=8)
SUBJECTS = torch.zeros(2, 7, 3)
SUBJECTS[0, 2, 0] = 1.0  # the first picture has one subject, the second another of two tokens
SUBJECTS[1, 4:6, 1] = 0.5


def exciting_unet():
    return tiny_unet(attention_resolutions=[2, 1])


def excited(guidance, unet, x, t=500.0):
    def conditional(x):
        return unet(x, torch.full((len(x),), t), context=CONTEXT)

    with guidance.attached(unet):
        return guidance.prepared(x, conditional)


def losses_at(unet, x):
    guidance = Excitement(5.0, lambda context: SUBJECTS)
    with guidance.attached(unet):
        return guidance._slope(x, lambda x: unet(x, torch.full((len(x),), 500.0), context=CONTEXT))[0]


def test_attend_and_excite_loses_what_its_weakest_subject_lacks():
    maps = random(2, 7, 6, 6, seed=9).softmax(dim=1)
    line = torch.tensor([math.exp(-2.0), 1.0, math.exp(-2.0)])
    kernel = torch.outer(line, line) / line.sum() ** 2
    two = SUBJECTS.clone()
    two[0, 1, 2] = 1.0

    def strongest(picture, tokens):
        shares = (100 * maps[picture, 1:]).softmax(dim=0)[[token - 1 for token in tokens]].mean(dim=0)
        padded = F.pad(shares[None, None], (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, kernel[None, None]).max()

    wanted = [max(1 - strongest(0, [2]), 1 - strongest(0, [1])), 1 - strongest(1, [4, 5])]
    assert torch.allclose(attend_and_excite.loss(maps, two), torch.stack(wanted), atol=1e-6)
    assert torch.equal(attend_and_excite.loss(maps, torch.zeros_like(two)), torch.zeros(2))


def test_attend_and_excite_reads_the_maps_of_the_layers_that_asyndm_reads():
    unet, x, t = exciting_unet(), random(2, 4, 16, 16), torch.full((2,), 500.0)
    before = hooks_on(unet)
    maps = s_cfg._AttentionMaps()
    with maps.attached(unet), attend_and_excite.read_maps(unet, (16, 16)) as read:
        unet(x, t, context=CONTEXT)
        every = [layer["attn2"] for layer in maps.take()]
    assert hooks_on(unet) == before
    wanted = [one.transpose(1, 2).unflatten(-1, (8, 8)) for one in every if one.shape[1] == 64]
    assert len(wanted) == len(read) > 1
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(wanted, read, strict=True))


def test_a_move_lowers_the_loss_of_every_picture_that_has_a_subject():
    unet, x = exciting_unet(), random(2, 4, 16, 16)
    guidance = Excitement(5.0, lambda context: SUBJECTS, strength=5.0)
    guidance.begin(1, 50)  # no threshold holds here
    before, hooks = losses_at(unet, x), hooks_on(unet)
    moved = excited(guidance, unet, x)
    assert hooks_on(unet) == hooks
    assert guidance.latent is None  # nothing stays
    assert not moved.requires_grad
    assert (losses_at(unet, moved) < before).all()
    assert torch.equal(excited(Excitement(5.0, lambda context: SUBJECTS, strength=0.0), unet, x), x)
    guidance = Excitement(5.0, lambda context: torch.zeros_like(SUBJECTS))
    guidance.begin(1, 50)
    assert torch.equal(excited(guidance, unet, x), x)


def test_a_move_goes_down_the_slope_of_the_loss():
    unet, x, size = exciting_unet(), random(2, 4, 16, 16), 1e-2
    guidance = Excitement(5.0, lambda context: SUBJECTS, strength=1.0)
    guidance.begin(5, 50)
    down = x - excited(guidance, unet, x)
    slope = down / math.sqrt(1 - 0.05)
    towards = random(2, 4, 16, 16, seed=6)
    change = (losses_at(unet, x + size * towards) - losses_at(unet, x - size * towards)) / (2 * size)
    assert torch.allclose((slope * towards).sum(dim=(1, 2, 3)), change, rtol=0.05, atol=1e-4)


@pytest.mark.parametrize(
    ("step", "threshold", "moves"),
    [(0, 1.0, 20 + 1), (0, 0.0, 1), (1, 1.0, 1), (10, 1.0, 21), (20, 1.0, 21), (21, 1.0, 1), (25, 1.0, 0)],
)
def test_the_latent_is_moved_until_a_threshold_is_reached(monkeypatch, step, threshold, moves):
    monkeypatch.setattr(attend_and_excite, "THRESHOLDS", dict.fromkeys(attend_and_excite.THRESHOLDS, threshold))
    unet, x, sizes = exciting_unet(), random(2, 4, 16, 16), []
    guidance = Excitement(5.0, lambda context: SUBJECTS)
    guidance.begin(step, 50)
    slope = guidance._slope

    def watched(x, conditional):
        sizes.append(x)
        return slope(x, conditional)

    monkeypatch.setattr(guidance, "_slope", watched)
    excited(guidance, unet, x)
    assert len(sizes) == moves


def test_a_picture_that_has_reached_the_threshold_is_moved_once(monkeypatch):
    unet, x = exciting_unet(), random(2, 4, 16, 16)
    guidance = Excitement(5.0, lambda context: SUBJECTS)
    reached = torch.tensor([0.9, 0.0])
    seen = []

    def slope(x, conditional):
        seen.append(x)
        return reached, torch.ones_like(x)

    monkeypatch.setattr(guidance, "_slope", slope)
    monkeypatch.setattr(attend_and_excite, "THRESHOLDS", {0.0: 0.5})
    guidance.begin(0, 50)
    moved = excited(guidance, unet, x)
    assert len(seen) == attend_and_excite.MOST_MOVES + 1
    assert torch.allclose(x - moved, torch.tensor([21 * 20.0, 20.0]).view(2, 1, 1, 1).expand_as(x), atol=1e-3)
