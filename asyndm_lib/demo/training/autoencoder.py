"""Stage 1: train the autoencoder on scenes, or later its decoder alone, which leaves the latents as
they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import scenery, scenes, sprites
from .networks import Autoencoder, read_config
from .training import Average, StageTimer, contact_sheet, learning_rate, load_weights, save_weights


@dataclass
class Settings:
    """The options of the autoencoder's training."""

    sprites: Path
    config: Path
    output: Path
    resume: Path | None = None
    decoder_only: bool = False
    seconds: float | None = None
    iterations: int | None = None
    batch: int = 48
    rate: float = 6e-4
    detail: float = 0.7  # share of pictures full of overlapping objects, no ordinary scenes
    scenery: float = 0.0  # share of the pictures that have a scenery as background
    kl: float = 1e-4
    latent_noise: float = 0.0  # in units of the latents' spread; the decoder learns to undo it
    compile: bool = True
    sheet: Path | None = None
    seed: int = 0
    device: str = "cuda"


def reconstruction_loss(made: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss on pictures, and the L1 error alone.

    The loss is the L1 and squared error of pixels, and the L1 error of horizontal and vertical
    differences and of a coarser picture. The differences ask for edges; the squared error punishes
    small spots that are far off.
    """
    error = made - real
    l1 = error.abs().mean()
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    coarse = F.avg_pool2d(error, 4).abs().mean()
    return l1 + 0.5 * edges + 0.5 * coarse + 2 * error.square().mean(), l1


def train(settings: Settings) -> None:
    """Run the stage and write ``output``: ``vae.*`` weights (averaged) and ``scale_factor``."""
    device = torch.device(settings.device)
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    torch.backends.cudnn.benchmark = True
    painter = scenes.Painter(sprites.load(settings.sprites), device, scenery.backdrops() if settings.scenery else None)
    vae = Autoencoder(read_config(settings.config)["first_stage_config"]["params"])
    spread = torch.ones(())
    if settings.resume:
        spread = 1 / load_weights({"vae": vae}, settings.resume)["scale_factor"]
    vae = vae.to(device, memory_format=torch.channels_last)
    noise = float(spread) * settings.latent_noise
    parts = [vae.decoder, vae.post_quant_conv] if settings.decoder_only else [vae]
    trained = torch.nn.ModuleList(parts)
    optimiser = torch.optim.AdamW(trained.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=0.0,
                                  fused=device.type == "cuda")
    average = Average(trained, 0.998)

    def loss_of(real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if settings.decoder_only:
            with torch.no_grad():
                mean, logvar = vae.encode(real)
        else:
            mean, logvar = vae.encode(real)
        mean, logvar = mean.float(), logvar.float()
        std = (0.5 * logvar).exp()
        if noise:
            std = std + noise * torch.rand(len(real), 1, 1, 1, device=real.device)
        made = vae.decode(mean + std * torch.randn_like(mean))
        loss, l1 = reconstruction_loss(made.float(), real)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return loss + settings.kl * kl, l1

    step = torch.compile(loss_of, dynamic=False) if settings.compile else loss_of
    timer = StageTimer(settings.seconds, settings.iterations)
    seen: list[torch.Tensor] = []
    while timer.progress < 1:
        crowded = round(settings.batch * settings.detail)
        layouts = [scenes.draw_detail(crowded, rng), scenes.draw_layout(settings.batch - crowded, rng, tries=4)]
        for layout in layouts:
            before(layout, settings.scenery, rng)
        real = torch.cat([painter.paint(layout)[0] for layout in layouts])
        real = real.contiguous(memory_format=torch.channels_last)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings.rate, timer.count, timer.progress, 0.4)
        with torch.autocast(device.type, torch.bfloat16):
            loss, l1 = step(real)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        average.update()
        seen.append(l1.detach())
        timer.count += 1
        if timer.count % 250 == 0:
            print(f"vae {timer.count} {timer.elapsed:.0f} s l1 {torch.stack(seen).mean():.4f}", flush=True)
            seen.clear()
    average.swap()
    scale = measure(vae, painter, settings, rng)
    if settings.resume and settings.decoder_only:
        scale = 1 / spread
    save_weights({"vae": vae}, settings.output, scale_factor=torch.as_tensor(scale, dtype=torch.float32))
    print(f"vae done: {timer.count} iterations, {timer.elapsed:.0f} s", flush=True)


def before(layout: scenes.Layout, share: float, rng: np.random.Generator) -> None:
    """Put a ``share`` of the scenes in front of a scenery."""
    if share:
        inside = rng.random(len(layout.concept)) < share
        layout.backdrop = np.where(inside, scenes.draw_backdrops(len(inside), rng), -1)


@torch.no_grad()
def measure(vae: Autoencoder, painter: scenes.Painter, settings: Settings, rng: np.random.Generator) -> float:
    """Print the mean L1 error on new scenes, write the contact sheet, and return 1 / the latents'
    standard deviation."""
    count, errors, latents, shown = 8, [], [], []
    for _ in range(8 if settings.device == "cuda" else 1):
        layout = scenes.draw_layout(32 if settings.device == "cuda" else count, rng)
        before(layout, settings.scenery, rng)
        real, _ = painter.paint(layout)
        with torch.autocast(painter.device.type, torch.bfloat16, enabled=settings.device == "cuda"):
            mean, _ = vae.encode(real)
            made = vae.decode(mean).float().clamp(-1, 1)
        errors.append((made - real).abs().mean())
        latents.append(mean.float())
        shown = [real[:count], made[:count]]
    scale = 1 / torch.cat(latents).std().item()
    print(f"vae on new scenes: l1 {torch.stack(errors).mean():.4f}, latent spread {1 / scale:.3f}", flush=True)
    if settings.sheet:
        contact_sheet(torch.cat(shown), count, settings.sheet)
    return scale
