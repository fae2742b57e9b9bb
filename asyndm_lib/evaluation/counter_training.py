"""Train the counter network and measure it: ``python -m asyndm_lib.evaluation.counter_training``

It learns from rendered scenes of up to six objects, encoded and decoded by the embedded model's
autoencoder. Training scenes have noise on their latents, since a sampler's latents are not exact
either. The sprites come from ``python -m asyndm_lib.demo.training sprites … --unseen``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..demo import MODEL, outputs, program
from ..demo.device import device_of
from ..demo.program import number, whole
from ..demo.training import scenery, sprites
from ..demo.training.concepts import BACKGROUNDS, UNNAMED_BACKGROUNDS
from ..demo.training.export import PREFIXES
from ..demo.training.networks import Autoencoder, read_config
from ..demo.training.scenes import GRID, SIZE_RANGE, Layout, Painter, draw_backdrops, overlaps
from ..demo.training.sprites import SIZES
from ..demo.training.training import fill, learning_rate, read_weights
from ..errors import AsynDMError
from .counter import CELL, NAMES, WEIGHTS, CounterNetwork, find, tally

MOST = 6
"""The most objects in a scene."""

SHARES = (0.02, 0.1, 0.22, 0.22, 0.2, 0.14, 0.1)
"""The shares of the scenes with 0, 1, … 6 objects."""

NOISE = 0.1
"""The most noise on a training scene's latents, which have unit spread."""

CANVAS = 256
SPREAD = 1.0
"""The spread, in cells, of the bump around each centre that the network learns."""


def draw_layout(n: int, rng: np.random.Generator, tries: int = 48) -> Layout:
    """Scenes in which things may repeat. Of several placements each takes the one with the least
    overlap."""
    count = rng.choice(len(SHARES), n, p=np.array(SHARES) / sum(SHARES))
    used = np.arange(MOST)[None] < count[:, None]
    repeats = rng.random((n, MOST)) < 0.35  # the same thing as the one before
    repeats[:, 0] = False
    thing = rng.integers(0, len(NAMES), (n, MOST))
    for slot in range(1, MOST):
        thing[:, slot] = np.where(repeats[:, slot], thing[:, slot - 1], thing[:, slot])
    limits = np.array([SIZE_RANGE[min(max(k, 1), 4)] for k in range(MOST + 1)])
    low, high = (np.array([SIZES.index(edge) for edge in limits[:, side]])[count] for side in (0, 1))
    size = np.where(used, rng.integers(low[:, None], high[:, None] + 1, (n, MOST)), -1)
    edge = np.where(used, np.array(SIZES)[size], 0)
    room = np.maximum(CANVAS - edge, 0)[:, None]
    x, y = ((rng.random((n, tries, MOST)) * (room // GRID + 1)).astype(np.int32) * GRID for _ in range(2))
    overlap = sum(depth**2 for depth in overlaps(edge, used, x, y))
    best, rows = overlap.argmin(1), np.arange(n)
    palette = np.array([*BACKGROUNDS.values(), *UNNAMED_BACKGROUNDS])
    colour = palette[rng.integers(0, len(palette), n)] + rng.integers(-12, 13, (n, 3))
    colour = colour.clip(0, 255)[:, None].repeat(2, 1)
    return Layout(
        np.where(used, thing, -1), np.where(used, 0, -1), size, x[rows, best], y[rows, best], colour, np.full(n, -1)
    )


def centres(layout: Layout) -> Tensor:
    """Every object's number and its centre in pixels, x and y: ``[n, MOST, 3]``. The number is -1
    where none is."""
    half = np.where(layout.size >= 0, np.array(SIZES)[layout.size], 0) / 2
    return torch.from_numpy(np.stack([layout.concept, layout.x + half, layout.y + half], axis=-1)).float()


def moved(pictures: Tensor, centre: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures ``[n, 3, H, W]`` and their centres, shifted by up to a cell and scaled by up to 12
    %.

    Scenes are drawn on the model's grid and in its sizes; a sampler's objects keep neither exactly.
    """
    draw = torch.rand(len(pictures), 3, device=pictures.device, generator=generator) * 2 - 1
    zoom, shift = torch.exp(0.12 * draw[:, :1]), draw[:, 1:] * CELL
    middle = CANVAS / 2
    to = (centre[..., 1:] - middle) * zoom[:, None] + middle + shift[:, None]
    theta = torch.zeros(len(pictures), 2, 3, device=pictures.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / zoom[:, 0]
    theta[:, :, 2] = -shift / middle / zoom
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return pictures, torch.cat([centre[..., :1], to], dim=-1)


def wanted(centre: Tensor) -> Tensor:
    """What the network should say, ``[n, names, cells, cells]``: 1 in the cell nearest to a centre,
    less around it."""
    cells = CANVAS // CELL
    axis = torch.arange(cells, device=centre.device)
    number, at = centre[..., 0].long(), centre[..., 1:] / CELL
    near = (axis - at[..., :1]) ** 2, (axis - at[..., 1:]) ** 2  # across, down
    bump = torch.exp(-(near[1][..., :, None] + near[0][..., None, :]) / (2 * SPREAD**2)).flatten(2)
    bump = torch.where(bump == bump.amax(dim=2, keepdim=True), 1.0, bump) * (number >= 0)[..., None]
    result = centre.new_zeros(len(centre), len(NAMES), cells * cells)
    index = number.clamp(min=0)[..., None].expand_as(bump)
    return result.scatter_reduce(1, index, bump, "amax").unflatten(2, (cells, cells))


def names(layout: Layout, row: int) -> list[str]:
    """The names of the objects of one scene."""
    return sorted(NAMES[thing] for thing in layout.concept[row] if thing >= 0)


def loss(logits: Tensor, target: Tensor) -> Tensor:
    """The focal loss of "Objects as Points" (eq. 1), which gives full weight far from every centre
    and little near one."""
    confidence = logits.sigmoid()
    centre = target == 1
    at = (1 - confidence) ** 2 * F.logsigmoid(logits) * centre
    elsewhere = (1 - target) ** 4 * confidence**2 * F.logsigmoid(-logits) * ~centre
    return -(at + elsewhere).sum() / centre.sum().clamp(min=1)


class Scenes:
    """Draws scenes and passes them through a model's autoencoder. ``share`` of them are in a
    scenery."""

    def __init__(self, atlas: np.ndarray, model: Path, share: float, device: torch.device):
        if len(atlas) < len(NAMES):
            raise AsynDMError(f"--sprites has {len(atlas)} things of {len(NAMES)}: draw them with --unseen")
        self._painter, self._device = Painter(atlas, device, scenery.backdrops() if share else None), device
        self._share = share
        config = read_config(model.with_suffix(".yaml"))
        self._vae, self._scale = Autoencoder(config["first_stage_config"]["params"]), config["scale_factor"]
        fill(self._vae, read_weights(model), PREFIXES["vae"], model)
        self._vae.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def draw(self, n: int, rng: np.random.Generator, noise: float) -> tuple[Layout, Tensor]:
        """``n`` layouts and their pictures, half precision ``[n, 3, 256, 256]``, with up to
        ``noise`` on the latents."""
        layout = draw_layout(n, rng)
        if self._share:
            layout.backdrop = np.where(rng.random(n) < self._share, draw_backdrops(n, rng), -1)
        pictures, _ = self._painter.paint(layout)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            mean, _ = self._vae.encode(pictures.contiguous(memory_format=torch.channels_last))
            spread = noise * torch.from_numpy(rng.random((n, 1, 1, 1), dtype=np.float32)).to(mean)
            draw = torch.from_numpy(rng.standard_normal(mean.shape, dtype=np.float32)).to(mean)
            return layout, self._vae.decode(mean + draw * spread / self._scale).clamp(-1, 1).half()


def measure(counter: CounterNetwork, scenes: Scenes, count: int, seed: int, device: torch.device) -> dict[str, float]:
    """The share of new scenes in which every object is named and nothing else is, by number of
    objects.

    Moved scenes are measured too.
    """
    rng, right, every = np.random.default_rng(seed), np.zeros(MOST + 1), np.zeros(MOST + 1)
    generator, still = torch.Generator(device).manual_seed(seed), 0
    for start in range(0, count, 64):
        layout, pictures = scenes.draw(min(64, count - start), rng, 0.0)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            unmoved = find(counter, pictures.float())
        still += sum(sorted(tally(things).elements()) == names(layout, row) for row, things in enumerate(unmoved))
        pictures, _ = moved(pictures.float(), centres(layout).to(device), generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found = find(counter, pictures)
        for row, things in enumerate(found):
            wanted = names(layout, row)
            every[len(wanted)] += 1
            right[len(wanted)] += sorted(tally(things).elements()) == wanted
    shares = {str(k): round(right[k] / every[k], 4) for k in range(MOST + 1) if every[k]}
    total = int(every.sum())
    return {
        "scenes": total,
        "exact": round(still / total, 4),
        "exact, moved": round(right.sum() / total, 4),
        "moved, by number of objects": shares,
    }


def train(options: argparse.Namespace) -> None:
    """Train on a pool of scenes for the given time, measure on new ones, and write the weights."""
    from safetensors.torch import save_file

    device = device_of(options.device)
    outputs.check_file(options.output, "--output")
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    scenes = Scenes(sprites.load(options.sprites), options.model, options.scenery, device)
    start = time.monotonic()
    parts = [scenes.draw(min(128, options.scenes - at), rng, NOISE) for at in range(0, options.scenes, 128)]
    pictures = torch.cat([pool for _, pool in parts])
    places = torch.cat([centres(layout) for layout, _ in parts]).to(device)
    generator = torch.Generator(device).manual_seed(options.seed)
    print(f"{len(pictures)} scenes after {time.monotonic() - start:.0f} s", flush=True)

    counter = CounterNetwork().to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(counter.parameters(), weight_decay=1e-3)
    start, step, spent = time.monotonic(), 0, 0.0
    while spent < options.seconds:
        progress = spent / options.seconds
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(2e-3, step, progress, 0.3, warmup=100)
        at = torch.randint(len(pictures), (options.batch,), device=device, generator=generator)
        picture, centre = moved(pictures[at].float(), places[at], generator)
        tint = torch.rand(2, options.batch, 3, 1, 1, device=device, generator=generator) - 0.5
        picture = (picture * (1 + 0.2 * tint[0]) + 0.2 * tint[1]).clamp(-1, 1)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = counter(picture.contiguous(memory_format=torch.channels_last))
        value = loss(logits.float(), wanted(centre))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(counter.parameters(), 5.0)
        optimiser.step()
        step += 1
        if step % 20 == 0:
            spent = time.monotonic() - start
        if step % 500 == 0:
            print(f"{step} steps, {spent:.0f} s, loss {value.item():.3f}", flush=True)
    counter.eval()
    report = measure(counter, scenes, options.held_out, options.seed + 1, device)
    print(json.dumps({"steps": step, **report}))
    weights = {name: value.half().cpu().contiguous() for name, value in counter.state_dict().items()}
    save_file(weights, options.output)
    options.output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options, train, and return the exit code."""
    return program.run(lambda: train(_parser().parse_args(arguments)))


def _parser() -> program.Parser:
    parser = program.Parser(prog="python -m asyndm_lib.evaluation.counter_training", description=train.__doc__)
    add = parser.add_argument
    add("--sprites", type=Path, required=True, help="the sprites' file")
    add("--output", type=Path, default=WEIGHTS, help="where the weights go; the accuracy goes beside them, as JSON")
    add("--model", type=Path, default=MODEL, help="the model whose autoencoder the scenes go through")
    add("--scenery", type=number(0, 1), default=0.0, metavar="SHARE", help="share of the scenes that are in a scenery")
    add("--scenes", type=whole(1, 10**7), default=16_000, metavar="N", help="training scenes")
    add("--held-out", type=whole(1, 10**7), default=3_000, metavar="N", help="new scenes that it is measured on")
    add("--seconds", type=number(1, 10**6), default=45, metavar="N", help="training time")
    add("--batch", type=whole(1, 10**5), default=256, metavar="N", help="pictures a step")
    add("--seed", type=whole(0, 2**32 - 2), default=7, metavar="N", help="of the scenes; the next one: of new scenes")
    add("--device", default="cuda", help="cpu or cuda")
    return parser


if __name__ == "__main__":
    sys.exit(main())
