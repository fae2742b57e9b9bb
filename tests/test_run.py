"""A whole run: against a float64 reference of docs/METHOD.md written here alone, and against the
host's own sampler."""

from __future__ import annotations

import math
from itertools import pairwise

import k_diffusion.sampling as k_diffusion
import numpy as np
import pytest
import torch
from authors_grid import AuthorsGrid
from authors_masks import authors_masks
from stand_ins import LEVELS, AttendingUNet, Noise, WatchedRun, hooks_on, make_run, tiny_unet, uniform_sigmas, words
from torch import Tensor

from asyndm_lib.clock.schedule import Schedule
from asyndm_lib.errors import Unmatched
from asyndm_lib.prompt.prompt_targets import PromptTargets
from asyndm_lib.prompt.target_list import parse_targets
from asyndm_lib.run.host import Descent, Host
from asyndm_lib.run.run import Run
from asyndm_lib.run.run import masks_of as our_masks
from asyndm_lib.samplers.table import SAMPLERS
from asyndm_lib.settings.settings import Settings

T = 1000
ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, T) ** 2)
# The authors' final level, timestep 0.
LAST = torch.tensor(((1 - ALPHAS[0]) / ALPHAS[0]) ** 0.5, dtype=torch.float64)
HEIGHT, WIDTH = 6, 9

# --- The reference: numpy, its own clock, masks, alphas and loop ----------------------------------


def token_map(q: np.ndarray, k: np.ndarray, tokens: list[int], heads: int = 2) -> np.ndarray:
    """The mean over heads of softmax(q·kᵀ/√d) of one row, summed over ``tokens``: ``[h, w]``."""
    total = np.zeros(len(q))
    width = q.shape[1] // heads
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        total += weights[:, tokens].sum(axis=1) / heads
    return total.reshape(math.ceil(HEIGHT / 2), math.ceil(WIDTH / 2))


def target_maps(attended: list[tuple[Tensor, Tensor]], where: list) -> np.ndarray:
    """The maps ``A^o`` of every evaluation, image and target. ``where[image][target]`` has its
    tokens as ``(row, position)``."""
    maps = np.full((len(attended), len(where), len(where[0]), math.ceil(HEIGHT / 2), math.ceil(WIDTH / 2)), np.nan)
    for i, (q, k) in enumerate(attended):
        q, k = q.double().numpy(), k.double().numpy()
        for image, targets in enumerate(where):
            for target, tokens in enumerate(targets):
                if tokens:
                    maps[i, image, target] = sum(token_map(q[row], k[row], [at]) for row, at in tokens) / len(tokens)
    return maps


def masks_of(maps: np.ndarray, ks: list[float], threshold: float) -> np.ndarray:
    """The concavity of every latent pixel, nan where it is not related, ``[B, H, W]``, from ``maps
    [B, T, h, w]``."""
    out = np.full((len(maps), HEIGHT, WIDTH), np.nan)
    for image in range(len(maps)):
        for j in range(HEIGHT):
            for i in range(WIDTH):
                y, x = math.floor(j * maps.shape[2] / HEIGHT), math.floor(i * maps.shape[3] / WIDTH)
                for a, k in zip(maps[image], ks, strict=True):
                    margin = a[y, x] / (threshold * a.mean()) - 1
                    assert not abs(margin) < 1e-5, "too near to the threshold for single precision"
                    if margin >= 0:
                        out[image, j, i] = np.nanmax([k, out[image, j, i]])
    return out


def related_at(timing: str, maps: np.ndarray, rehearsed: np.ndarray, ks: list[float], threshold: float, lead: int):
    """The mask of every advance: ``lead`` before the first evaluation, then one after each
    evaluation but the last."""
    n, images = len(maps), maps.shape[1]
    if timing == "static":
        return [masks_of(rehearsed.mean(axis=0), ks, threshold)] * (lead + n - 1)
    present = ~np.isnan(maps[0, :, :, 0, 0])
    strongest = [max([k for k, there in zip(ks, own, strict=True) if there], default=np.nan) for own in present]
    whole = np.broadcast_to(np.array(strongest)[:, None, None], (images, HEIGHT, WIDTH))
    steps = [masks_of(own, ks, threshold) for own in maps[:-1]]
    return [whole] * lead + (steps if timing == "fresh" else [whole, *steps[:-1]][: n - 1])


def authors_states(masks: list[np.ndarray], n: int) -> list[np.ndarray]:
    """The timesteps before every evaluation, from 1001 to 1, by the parabola of curvature
    ``-kT/N²`` through both."""
    state, out = np.full(masks[0].shape, T + 1.0), []
    for advance, k in enumerate(masks):
        r, related = n - advance, ~np.isnan(k)
        curvature = -np.where(related, k, 0.0) * T / n**2
        slope = (1 - state - curvature * r**2) / r
        state = state + slope + curvature
        out.append(state)
    return [np.rint(state).astype(int) for state in out]


def ddim_reference(run: WatchedRun, x: Tensor, ts: list[np.ndarray], eta: float) -> tuple[Tensor, list[Tensor]]:
    noise = Noise()
    alphas = [torch.from_numpy(ALPHAS[t])[:, None] for t in ts] + [
        torch.full((1, 1, 1, 1), ALPHAS[0], dtype=torch.float64)
    ]
    for a, a_next in pairwise(alphas):
        eps = model(x, ((1 - a) / a).sqrt())
        denoised = (x - (1 - a).sqrt() * eps) / a.sqrt()
        std = eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)).sqrt()
        x = a_next.sqrt() * denoised + (1 - a_next - std**2).sqrt() * eps + std * noise.like(x)
    return x, [((1 - a) / a).sqrt() for a in alphas[:-1]]


def model(x: Tensor, sigma: Tensor) -> Tensor:
    """The host's guided prediction; each pixel sees its neighbours and their noise levels."""
    near = x + 0.3 * x.roll(1, -1) - 0.2 * x.roll(1, -2)
    return torch.tanh(near / (1 + sigma)) + 0.1 * torch.sin(3 * x) * sigma.roll(1, -1) / (1 + sigma)


def latent(images: int) -> Tensor:
    return torch.randn(images, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


# "a cat and a dog" has cat at token 2 and dog at 5; each image's conditional row is its own number.
CAT_AND_DOG = ["a cat and a dog", "dog"]
WHERE = [[[(0, 2)], [(0, 5)]], [[], [(1, 1)]]]


def run_on_authors_grid(n: int, eta: float, prompts: list, **settings) -> tuple[WatchedRun, Tensor, Tensor]:
    x = latent(len(prompts))
    # No pixel reads the host's scalars, all being related from the first advance; the last one is
    # the end of all.
    scalars = [torch.tensor(math.nan, dtype=torch.float64)] * n + [LAST]
    grid = AuthorsGrid(n, LEVELS)
    with make_run(x, torch.ones(n), model, prompts=prompts, schedule=grid, scalars=scalars, **settings) as run:
        out = run.sample(SAMPLERS["ddim"], x, eta=eta)
    assert not run.problems
    return run, x, out


@pytest.mark.parametrize("timing", ["lagged", "fresh"])
@pytest.mark.parametrize("n", [1, 2, 7, 50])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(
    ("targets", "ks"), [("cat, dog", [0.5, 0.5]), ("cat:0.3, dog:0.7", [0.3, 0.7])], ids=["one k", "two k"]
)
def test_a_run_on_the_authors_grid_is_the_reference(timing, n, eta, targets, ks):
    run, x, out = run_on_authors_grid(n, eta, CAT_AND_DOG, targets=targets, concavity=0.5, mask_timing=timing)
    assert len(run.attended) == n
    masks = related_at(timing, target_maps(run.attended, WHERE), np.empty(0), ks, 1.0, lead=1)
    expected, sigmas = ddim_reference(run, x, authors_states(masks, n), eta)
    torch.testing.assert_close(torch.stack(run.seen), torch.stack(sigmas), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    assert n < 7 or len(run.seen[n // 2].unique()) > 2, "no two pixels differed"


@pytest.mark.parametrize("targets", ["cat, dog", "cat:0.3, dog:0.7"])
def test_a_static_run_on_the_authors_grid_is_the_reference(targets):
    # A pixel of no mask stays on the grid's own clock, so here the scalars are read.
    n, ks = 20, [t.concavity or 0.5 for t in parse_targets(targets)]
    x, grid = latent(2), AuthorsGrid(20, LEVELS)
    scalars = [*grid.sigma(torch.arange(1, n + 1)), LAST]
    settings = {"targets": targets, "mask_timing": "static", "threshold": 1.1}
    with make_run(x, torch.ones(n), model, prompts=CAT_AND_DOG, schedule=grid, scalars=scalars, **settings) as run:
        out = run.sample(SAMPLERS["ddim"], x, eta=1.0)
    assert len(run.rehearsed) == len(run.attended) == n
    maps = target_maps(run.attended, WHERE), target_maps(run.rehearsed, WHERE)
    masks = related_at("static", *maps, ks, 1.1, lead=1)
    expected, sigmas = ddim_reference(run, x, authors_states(masks, n), 1.0)
    torch.testing.assert_close(torch.stack(run.seen), torch.stack(sigmas), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


# --- The same masks on the users' grid, for every curve -------------------------------------------


def next_progress(curve: str, u: float, k: float, r: int, m: int) -> float:
    if r == 1:
        return m
    if math.isnan(k):
        return u + (m - u) / r
    if curve == "quadratic":
        return u + (m - u) / r - k * (r - 1) / m
    if curve == "piecewise linear":
        return max(u + 1 - k, m - (1 + k) * (r - 1))
    # y = E·e^{x/m} + b·x + c in timesteps, E = a·e^{-λx0} from the two ends.
    state, b = T - T * u / m, -(1 - k) * T / m
    E = (0 - state - b * r) / (math.exp(r / m) - 1)
    return m - (E * (math.exp(1 / m) - 1) + b + state) * m / T


def sigma_maps(curve: str, masks: list[np.ndarray], sigmas: np.ndarray) -> np.ndarray:
    """The sigma of every pixel at every evaluation, linear in the timestep between the
    schedule's."""
    m, u = len(sigmas) - 1, np.zeros(masks[0].shape if masks else (1, HEIGHT, WIDTH))
    table = np.log((1 - ALPHAS) / ALPHAS) / 2
    knots, out = np.interp(np.log(sigmas), table, np.arange(T)), []
    for i in range(m + 1):
        t = np.interp(u, np.arange(m + 1), knots)
        out.append(np.exp(np.interp(t, np.arange(T), table)))
        if i < m:
            pairs = zip(u.flat, masks[i].flat, strict=True)
            u = np.array([next_progress(curve, own, k, m - i, m) for own, k in pairs]).reshape(u.shape)
    return np.array(out)[:, :, None]


@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear", "exponential"])
@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
@pytest.mark.parametrize("targets", ["cat, dog", "cat:0.3, dog:0.7", "cat:0.2"])
@pytest.mark.parametrize("n", [2, 9])
def test_every_step_uses_the_mask_of_its_timing_on_the_users_grid(curve, timing, targets, n):
    parsed = parse_targets(targets)
    ks, where = [t.concavity or 0.5 for t in parsed], [own[: len(parsed)] for own in WHERE]
    sigmas = uniform_sigmas(n)
    x = latent(2) * sigmas[0]
    settings = {"targets": targets, "mask_timing": timing, "curve": curve, "threshold": 0.9}
    with make_run(x, sigmas, model, prompts=CAT_AND_DOG, **settings) as run:
        run.sample(SAMPLERS["sample_euler"], x)
    rehearsed = target_maps(run.rehearsed, where) if timing == "static" else np.empty(0)
    masks = related_at(timing, target_maps(run.attended, where), rehearsed, ks, 0.9, lead=0)
    expected = sigma_maps(curve, masks, sigmas[:-1].numpy())
    np.testing.assert_allclose(torch.stack(run.seen).numpy(), expected, rtol=1e-7)
    if n > 2:  # the masks are of consequence, so that another step's or image's would not do
        assert len({mask.tobytes() for mask in masks}) == (1 if timing == "static" else len(masks))
        assert not np.array_equal(masks[-1][0], masks[-1][1], equal_nan=True)


@pytest.mark.parametrize("timing", ["lagged", "fresh"])
def test_a_steps_maps_are_those_of_its_first_evaluation(timing):
    def three_times(run: Run, x: Tensor) -> Tensor:
        for step in run:
            step.predict(x)
            step.predict(x, step.sigma.apply(lambda sigma: sigma * 0.9))
            step.predict(x, step.advance())
        return x

    sigmas = uniform_sigmas(6)
    x = latent(2) * sigmas[0]
    with make_run(x, sigmas, model, prompts=CAT_AND_DOG, targets="cat, dog", mask_timing=timing) as run:
        run.sample(three_times, x)
    assert len(run.attended) == 18
    masks = related_at(timing, target_maps(run.attended[::3], WHERE), np.empty(0), [0.5, 0.5], 1.0, lead=0)
    expected = sigma_maps("quadratic", masks, sigmas[:-1].numpy())
    np.testing.assert_allclose(torch.stack(run.seen).numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear", "exponential"])
@pytest.mark.parametrize("k", [0.3, 1.0])
def test_the_whole_picture_follows_one_clock_and_reads_no_map(curve, k):
    sigmas = uniform_sigmas(9)
    x = latent(2) * sigmas[0]
    with make_run(x, sigmas, model, whole_picture=True, concavity=k, curve=curve, mask_timing="static") as run:
        attention = run.host.model.input_blocks[1].attn2
        assert hooks_on(attention) == 0
        run.sample(SAMPLERS["sample_euler"], x)
    assert run.rehearsed == []
    expected = sigma_maps(curve, [np.full((2, HEIGHT, WIDTH), k)] * 8, sigmas[:-1].numpy())
    np.testing.assert_allclose(torch.stack(run.seen).numpy(), expected, rtol=1e-9)


# --- Prompts --------------------------------------------------------------------------------------


def test_and_parts_share_one_mask_over_all_their_tokens():
    # Rows: image 0's two parts, image 1's, then unconditional.
    prompts = [["a cat", "dog b dog"], "a dog"]
    where = [[[(0, 2)], [(1, 1), (1, 3)]], [[], [(2, 2)]]]
    run, x, out = run_on_authors_grid(9, 1.0, prompts, targets="cat, dog")
    masks = related_at("lagged", target_maps(run.attended, where), np.empty(0), [0.5, 0.5], 1.0, lead=1)
    expected, _ = ddim_reference(run, x, authors_states(masks, 9), 1.0)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


def test_a_target_in_several_and_parts_has_the_mean_map_of_its_tokens():
    prompts = [["a dog", "dog b dog"], "a dog"]
    where = [[[(0, 2), (1, 1), (1, 3)]], [[(2, 2)]]]
    run, x, out = run_on_authors_grid(9, 0.0, prompts, targets="dog", mask_timing="fresh")
    masks = related_at("fresh", target_maps(run.attended, where), np.empty(0), [0.5], 1.0, lead=1)
    expected, _ = ddim_reference(run, x, authors_states(masks, 9), 0.0)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("slices", [[5], [3, 2], [1, 1, 1, 1, 1], [2, 3]])
def test_a_batch_evaluated_in_slices_keeps_every_row_with_its_image(slices):
    prompts = [["a cat", "dog b dog"], "a dog"]
    where = [[[(0, 2)], [(1, 1), (1, 3)]], [[], [(2, 2)]]]
    run, x, out = run_on_authors_grid(5, 1.0, prompts, targets="cat, dog", slices=slices)
    masks = related_at("lagged", target_maps(run.attended, where), np.empty(0), [0.5, 0.5], 1.0, lead=1)
    expected, _ = ddim_reference(run, x, authors_states(masks, 5), 1.0)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("timing", ["lagged", "fresh"])
def test_prompt_editing_relates_a_target_while_the_prompt_holds_it(timing):
    edited = [[(2, "a cat"), (10**6, "dog")]]  # cat at evaluations 0 … 2, dog from 3 on
    sigmas = uniform_sigmas(9)
    x = latent(2) * sigmas[0]
    with make_run(x, sigmas, model, prompts=[edited, "bird"], targets="cat:0.3, dog:0.7", mask_timing=timing) as run:
        run.sample(SAMPLERS["sample_euler"], x)
    cat, dog = (target_maps(run.attended, [[[(0, at)]], [[]]]) for at in (2, 1))
    steps = [masks_of(maps, [k], 1.0) for maps, k in [(own, 0.3) for own in cat[:3]] + [(own, 0.7) for own in dog[3:]]]
    whole = np.full((2, HEIGHT, WIDTH), np.nan)
    whole[0] = 0.3
    masks = steps[:8] if timing == "fresh" else [whole, *steps[:7]]
    expected = sigma_maps("quadratic", masks, sigmas[:-1].numpy())
    np.testing.assert_allclose(torch.stack(run.seen).numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_a_model_whose_attention_cannot_be_read(timing, monkeypatch):
    """Nothing is related, before the first map of a lagged run either, and the run says so."""
    monkeypatch.setattr(AttendingUNet, "forward", lambda self, x: (self.time_embed(x.flatten(1)), x))
    x, sigmas = latent(1), uniform_sigmas(5)
    with make_run(x, sigmas, model, targets="cat", mask_timing=timing) as run:
        run.sample(SAMPLERS["sample_euler"], x)
    assert "no token maps could be read" in next(iter(run.problems))
    assert run.blind
    assert not any(levels.any() for levels in run.lagged)


def test_a_static_mask_is_the_mean_over_the_steps_that_held_the_target():
    edited = [[(2, "a cat"), (10**6, "bird")]]
    sigmas = uniform_sigmas(9)
    x = latent(1) * sigmas[0]
    with make_run(x, sigmas, model, prompts=[edited], targets="cat", mask_timing="static") as run:
        run.sample(SAMPLERS["sample_euler"], x)
    maps = target_maps(run.rehearsed, [[[(0, 2)]]])[:3]
    masks = [masks_of(maps.mean(axis=0), [0.5], 1.0)] * 8
    np.testing.assert_allclose(
        torch.stack(run.seen).numpy(), sigma_maps("quadratic", masks, sigmas[:-1].numpy()), rtol=1e-7
    )


def test_a_static_run_calls_back_and_draws_as_one_ordinary_run():
    sigmas = uniform_sigmas(6)
    x = latent(1) * sigmas[0]
    seen = []
    with make_run(
        x, sigmas, model, targets="bird", mask_timing="static", callback=lambda d: seen.append(d["i"])
    ) as run:
        out = run.sample(SAMPLERS["sample_euler_ancestral"], x)
    assert seen == list(range(6))
    with make_run(x, sigmas, model, targets="bird") as run:
        assert torch.equal(out, run.sample(SAMPLERS["sample_euler_ancestral"], x))


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
@pytest.mark.parametrize("curve", ["quadratic", "exponential"])
def test_concavity_0_is_the_hosts_own_picture_to_the_bit(timing, curve):
    sigmas = uniform_sigmas(8, torch.float32)
    x = latent(1).float() * sigmas[0]
    settings = {"targets": "cat, dog", "concavity": 0.0, "mask_timing": timing, "curve": curve}
    with make_run(x, sigmas, model, **settings) as run:
        out = run.sample(SAMPLERS["sample_euler"], x)
    own = k_diffusion.sample_euler(lambda x, s: model(x, s.view(-1, 1, 1, 1)), x, sigmas, disable=True)
    assert torch.equal(out, own)


@pytest.mark.parametrize("name", ["sample_euler", "sample_euler_ancestral", "sample_dpmpp_2m"])
def test_pixels_never_related_are_updated_with_the_hosts_own_scalars(name, monkeypatch):
    sigmas = uniform_sigmas(6)
    rounded = sigmas * 1.001  # as where a host's own arithmetic is not the schedule's
    x = latent(2) * sigmas[0]
    prompts, settings = ["bird", "cat"], {"targets": "cat", "mask_timing": "fresh"}
    with make_run(x, sigmas, lambda x, s: torch.tanh(x), prompts=prompts, scalars=list(rounded), **settings) as run:
        out = run.sample(SAMPLERS[name], x)
    monkeypatch.setattr(torch, "randn_like", Noise().like)
    own = getattr(k_diffusion, name)(lambda x, s: torch.tanh(x), x, rounded, disable=True)
    assert torch.equal(out[0], own[0])
    never = run.lagging[1].logical_not().expand_as(out[1])
    assert 0 < never.sum() < never.numel()
    assert torch.equal(out[1][never], own[1][never])
    assert not torch.equal(out[1], own[1])


def test_a_run_can_be_repeated_and_gives_the_same():
    sigmas = uniform_sigmas(6)
    x = latent(2) * sigmas[0]
    outs = []
    for _ in range(2):
        with make_run(x, sigmas, model, prompts=CAT_AND_DOG, targets="cat, dog") as run:
            outs.append(run.sample(SAMPLERS["sample_euler_ancestral"], x))
    assert torch.equal(*outs)


# --- On ldm's own UNet ----------------------------------------------------------------------------


class LdmHost:
    """A host with classifier-free guidance on a tiny ldm UNet, on which a run may or may not be."""

    def __init__(self, images: int):
        self.unet = tiny_unet()
        random = torch.Generator().manual_seed(9)
        self.context = torch.randn(2 * images, 12, 8, generator=random)
        self.evaluations = 0
        self.run: Run | None = None

    def predict(self, x: Tensor, sigma: Tensor) -> Tensor:
        rows = torch.cat([x, x])
        s = sigma.reshape(-1, 1, 1, 1).expand(len(rows), 1, 1, 1)
        t = LEVELS.sigma_to_t(s.flatten().double()).float()
        if self.run is None:
            eps = self.unet(rows / (s**2 + 1) ** 0.5, t, self.context)
        else:
            with self.run.rows([(image, part) for part in (0, None) for image in range(len(x))]) as here:
                s = torch.where(here.lagging, here.sigma, s)
                eps = self.unet(rows / (s**2 + 1) ** 0.5, t, self.context)
        self.evaluations += 1
        conditional, unconditional = (rows - s * eps).chunk(2)
        return unconditional + 3 * (conditional - unconditional)


def ldm_run(prompts: list[str], sigmas: Tensor, x: Tensor, targets: str = "cat", **settings) -> tuple[LdmHost, Run]:
    own = LdmHost(len(x))
    host = Host(
        model=own.unet,
        descents=[Descent(Schedule(sigmas[:-1], LEVELS.sigma_to_t, LEVELS.t_to_sigma), list(sigmas))],
        predict=own.predict,
        step=lambda: own.evaluations,
        unconditional=lambda: x,
        randn_like=Noise().like,
        callback=None,
        progress=iter,
        rehearsal=Noise().kept,
        steady=lambda: True,
    )
    chosen = Settings(targets=targets, **settings)
    found = PromptTargets(parse_targets(targets), [[[(10**6, prompt)]] for prompt in prompts], words)
    own.run = Run(host, chosen, found, x)
    own.run.targets = found
    return own, own.run


def ldm_sizes(images: int, n: int = 5) -> tuple[Tensor, Tensor]:
    sigmas = uniform_sigmas(n, torch.float32)
    x = torch.randn(images, 4, 8, 12, generator=torch.Generator().manual_seed(10)) * sigmas[0]
    return sigmas, x


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_a_prompt_without_the_target_is_the_hosts_own_to_the_bit_while_its_neighbour_is_not(timing):
    sigmas, x = ldm_sizes(3)
    own, run = ldm_run(["a bird", "a cat", "two dogs"], sigmas, x, mask_timing=timing)
    with run:
        out = run.sample(SAMPLERS["sample_euler"], x)
    own.run = None
    plain = k_diffusion.sample_euler(lambda x, s: own.predict(x, s[0]), x, sigmas, disable=True)
    assert torch.isfinite(out).all()
    assert torch.equal(out[0], plain[0])
    assert torch.equal(out[2], plain[2])
    assert (out[1] - plain[1]).abs().mean() > 1e-3


def test_the_unet_evaluates_each_image_at_its_own_level_as_the_host_would():
    sigmas, x = ldm_sizes(2)
    own, run = ldm_run(["a bird", "a cat"], sigmas, x, concavity=1.0)
    with run:
        steps = iter(run)
        next(steps).predict(x)
        # Every pixel counts as related before the first map exists, where the prompt holds the
        # target.
        run.advance()
        step = next(steps)
        [level] = step.sigma.map[1].unique()
        assert level > 1.1 * step.sigma.scalar
        out = step.predict(x)
    own.run = None
    plain, expected = own.predict(x, step.sigma.scalar), own.predict(x, level)
    assert torch.equal(out[0], plain[0])
    torch.testing.assert_close(out[1], expected[1], rtol=1e-4, atol=1e-4 * x.std().item())
    assert (expected - plain)[1].abs().mean() > 0.01 * x.std()


def test_no_hooks_remain_after_success():
    sigmas, x = ldm_sizes(1)
    own, run = ldm_run(["a cat"], sigmas, x)
    assert hooks_on(own.unet) == 0
    with run:
        assert hooks_on(own.unet) > 0
        run.sample(SAMPLERS["sample_euler"], x)
    assert hooks_on(own.unet) == 0


class InterruptedException(BaseException):
    """A1111's own, which no ``except Exception`` catches."""


@pytest.mark.parametrize("error", [RuntimeError, InterruptedException, KeyboardInterrupt])
@pytest.mark.parametrize("timing", ["lagged", "static"])
@pytest.mark.parametrize("at", [0, 2, 5])
def test_no_hooks_remain_after_an_exception_in_a_prediction_and_it_reaches_the_host(error, timing, at):
    if at == 5 and timing == "lagged":
        at = 4
    sigmas, x = ldm_sizes(1)
    own, run = ldm_run(["a cat"], sigmas, x, mask_timing=timing)

    def failing(module, args, out):
        if own.evaluations == at:
            raise error("stop")

    handle = own.unet.out.register_forward_hook(failing)
    with pytest.raises(error, match="stop"), run:
        run.sample(SAMPLERS["sample_euler"], x)
    handle.remove()
    assert hooks_on(own.unet) == 0
    # The model itself is as before.
    own.run = None
    fresh = LdmHost(1)
    assert torch.equal(own.predict(x, sigmas[0]), fresh.predict(x, sigmas[0]))


def test_no_hooks_remain_where_entering_fails():
    sigmas, x = ldm_sizes(1)
    own, run = ldm_run(["a cat"], sigmas, x)
    del own.unet.output_blocks[0][0].emb_layers
    own.unet.output_blocks[0][0].emb_layers = None
    with pytest.raises(AttributeError), run:
        pass
    assert hooks_on(own.unet) == 0


def test_a_model_called_behind_the_runs_back_is_unsupported():
    sigmas, x = uniform_sigmas(4), latent(1)
    with make_run(x, sigmas, model, targets="cat") as run:
        run.host.predict = lambda x, sigma: x
        with pytest.raises(Unmatched, match="cannot see"):
            run.sample(SAMPLERS["sample_euler"], x)


def test_a_call_that_the_host_cannot_match_ends_the_run_after_the_evaluation():
    sigmas, x, calls = uniform_sigmas(4), latent(1), []
    with make_run(x, sigmas, model, targets="cat") as run:
        own = run.host.predict

        def predict(x, sigma):
            run.unmatched("which pictures?")
            calls.append(run.unet(x))
            return own(x, sigma)

        run.host.predict = predict
        with pytest.raises(Unmatched, match="which pictures"):
            run.sample(SAMPLERS["sample_euler"], x)
    assert len(calls) == 1
    run.unmatched("outside an evaluation that is nothing to the run")


def test_rows_outside_an_evaluation_do_nothing():
    sigmas, x = ldm_sizes(1)
    _, run = ldm_run(["a cat"], sigmas, x)
    with run:
        with run.rows([(0, 0)] * 7) as here:
            assert here is None
        run.sample(SAMPLERS["sample_euler"], x)
        with run.rows([(0, 0)] * 7) as here:
            assert here is None


def test_maps_that_cannot_be_read_are_a_problem_and_relate_nothing():
    sigmas, x = uniform_sigmas(6), latent(1)
    with make_run(x, sigmas, model, targets="cat", mask_timing="fresh") as run:
        attend = run.host.model.forward
        run.host.model.forward = lambda x: attend(x[..., :-3, :])  # another size inside the model
        out = run.sample(SAMPLERS["sample_euler"], x)
    assert len(run.problems) == 1
    assert "no token maps" in run.problems.pop()
    own = k_diffusion.sample_euler(lambda x, s: model(x, s.view(-1, 1, 1, 1)), x, sigmas, disable=True)
    assert torch.equal(out, own)


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_a_target_behind_what_the_model_reads_of_a_prompt_relates_nothing_and_is_named(timing):
    """The stand-in reads 12 tokens. A map of zeros reached its mean, zero, everywhere."""
    sigmas, x = uniform_sigmas(6), latent(2)
    far = "a dog " + "so " * 12 + "cat"
    with make_run(x, sigmas, model, prompts=[far, "a cat"], targets="cat", mask_timing=timing) as run:
        run.sample(SAMPLERS["sample_euler"], x)
    assert not any(levels[0].unique().numel() > 1 for levels in run.seen)
    assert any(levels[1].unique().numel() > 1 for levels in run.seen)
    lagging = [(levels[0] > level).any().item() for levels, level in zip(run.seen, sigmas, strict=False)]
    assert any(lagging) == (timing == "lagged")  # by the step before the first map alone
    [problem] = run.problems
    assert '"cat" was not seen' in problem


@pytest.mark.parametrize(("prompt", "theirs"), [("a cat and a dog", 0.5), ("a dog and a cat", 0.7), ("a dog", 0.5)])
def test_before_the_first_map_the_authors_take_the_k_of_the_last_word_and_ours_is_the_largest(prompt, theirs):
    sigmas = uniform_sigmas(6)
    x = torch.randn(1, 4, 6, 8, dtype=torch.float64)
    for masks, k in ((our_masks, 0.7 if "cat" in prompt else 0.5), (authors_masks, theirs)):
        named = {"targets": "cat:0.7, dog:0.5", "mask_timing": "lagged", "prompts": [prompt]}
        with make_run(x, sigmas, lambda x, sigma: x / (1 + sigma**2), masks=masks, **named) as run:
            run.sample(SAMPLERS["sample_euler"], x)
        # One advance of the quadratic clock, all cells related, with 5 left of 5.
        progress = torch.tensor([1 - k * 4 / 5], dtype=torch.float64)
        own = run.host.descents[0].schedule.sigma(progress).item()
        torch.testing.assert_close(run.seen[1], torch.full_like(run.seen[1], own), rtol=1e-6, atol=0)
