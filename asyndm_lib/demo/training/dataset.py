"""Stage 2: draw scenes and keep what the denoiser is trained on, which is latents, masks and
captions."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...errors import AsynDMError
from . import scenery, scenes, sprites
from .captions import MAX_TOKENS
from .networks import Autoencoder, read_config
from .training import encoder_digest, load_weights
from .vocabulary import WordEncoder

CHUNK = 256  # pictures encoded at a time


@dataclass
class Settings:
    """The options of drawing the data."""

    sprites: Path
    autoencoder: Path
    output: Path
    config: Path
    tokenizer: Path
    scenes: int = 200_000
    scenery: float = 0.0  # share of the scenes that are in a scenery
    seed: int = 0
    device: str = "cuda"


@dataclass
class Data:
    """Scenes as latents, masks and captions."""

    latents: torch.Tensor  # [n, 4, 32, 32], scaled to unit spread
    masks: torch.Tensor  # [n, groups, 16, 16] as bytes
    ids: torch.Tensor  # [n, MAX_TOKENS], padded with the end token
    groups: torch.Tensor  # [n, MAX_TOKENS], -1: names nothing
    lengths: torch.Tensor  # [n]
    encoder: torch.Tensor | None = None  # [32], which encoder made the latents

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Data:
        """Read a file that :func:`run` wrote. Raises :class:`AsynDMError` for any other."""
        try:
            return cls(**{key: value.to(device) for key, value in torch.load(path, weights_only=True).items()})
        except Exception as error:  # whatever unpickling somebody's file ends in
            raise AsynDMError(f"--data {path} is no file of the stage latents ({type(error).__name__})") from error


@torch.no_grad()
def run(settings: Settings) -> None:
    """Draw the scenes, encode their pictures, and write their captions."""
    device = torch.device(settings.device)
    encode = WordEncoder(settings.tokenizer)
    vae = Autoencoder(read_config(settings.config)["first_stage_config"]["params"])
    weights = load_weights({"vae": vae}, settings.autoencoder)
    scale = float(weights["scale_factor"])
    vae.to(device, memory_format=torch.channels_last)
    rng, words = np.random.default_rng(settings.seed), random.Random(settings.seed)
    painter = scenes.Painter(sprites.load(settings.sprites), device, scenery.backdrops() if settings.scenery else None)
    latents, masks, found = [], [], []
    chunk = min(settings.scenes, CHUNK)
    inside = round(chunk * settings.scenery)
    for _ in range(settings.scenes // chunk):
        layout = scenes.draw_layout(chunk - inside, rng, soft=0.0)
        if inside:
            layout = scenes.joined(layout, scenes.draw_in_sceneries(inside, rng))
        picture, alphas = painter.paint(layout)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            mean, _ = vae.encode(picture.contiguous(memory_format=torch.channels_last))
        latents.append((mean.float() * scale).half().contiguous())
        masks.append((painter.masks(layout, alphas) * 255).round().byte().contiguous())
        found += scenes.captions(layout, encode, words)
    ids = torch.full((len(found), MAX_TOKENS), encode.eos)
    groups = torch.full((len(found), MAX_TOKENS), -1)
    for row, caption in enumerate(found):
        ids[row, : len(caption.ids)] = torch.tensor(caption.ids)
        groups[row, : len(caption.ids)] = torch.tensor(caption.groups)
    data = Data(torch.cat(latents).contiguous(), torch.cat(masks).contiguous(), ids, groups,
                torch.tensor([len(caption.ids) for caption in found]), encoder_digest(weights))
    partial = settings.output.with_suffix(".part")
    torch.save({key: value.cpu() for key, value in vars(data).items()}, partial)
    partial.replace(settings.output)
    print(f"{len(data.latents)} scenes, spread of the latents {data.latents[:4096].float().std():.3f}", flush=True)
