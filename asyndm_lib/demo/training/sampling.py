"""A plain Euler sampler with classifier-free guidance for the trained parts. It keeps every step's
token maps."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .networks import TIMESTEPS, Autoencoder, TextEncoder, alphas_cumprod, unet_with_maps
from .vocabulary import CONTEXT_LENGTH, WordEncoder


@dataclass
class Model:
    """The parts of a text-to-image model."""

    unet: nn.Module
    text: TextEncoder
    vae: Autoencoder
    scale: float
    encode: WordEncoder


@dataclass
class Result:
    """Pictures in [-1, 1], and the conditional token maps if they are kept: one ``[n, h, w,
    tokens]`` per step."""

    pictures: torch.Tensor
    maps: list[torch.Tensor]


def tokenise_prompt(prompt: str, encode: WordEncoder) -> list[tuple[str, tuple[int, ...]]]:
    """The words of a plain prompt (letters, digits, single punctuation marks) with their tokens."""
    return [(word, encode(word)) for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", prompt.lower())]


def prompt_ids(prompts: list[str], encode: WordEncoder, device: torch.device | str) -> torch.Tensor:
    """The token ids ``[n, 77]`` of prompts, with start, end and padding."""
    ids = torch.full((len(prompts), CONTEXT_LENGTH), encode.eos)
    ids[:, 0] = encode.bos
    for row, prompt in enumerate(prompts):
        tokens = [token for _, word in tokenise_prompt(prompt, encode) for token in word][: CONTEXT_LENGTH - 2]
        ids[row, 1 : 1 + len(tokens)] = torch.tensor(tokens, dtype=ids.dtype)
    return ids.to(device)


def word_positions(prompt: str, phrase: str, encode: WordEncoder) -> list[int]:
    """Where every occurrence of a word or phrase stands among the 77 tokens."""
    words = tokenise_prompt(prompt, encode)
    wanted = phrase.lower().split()
    starts = np.cumsum([1] + [len(tokens) for _, tokens in words])
    places: list[int] = []
    for index in range(len(words) - len(wanted) + 1):
        if [word for word, _ in words[index : index + len(wanted)]] == wanted:
            places += range(starts[index], starts[index + len(wanted)])
    return places


@torch.no_grad()
def generate(model: Model, prompts: list[str], *, steps: int = 30, guidance: float = 4.5, seed: int = 0, edge: int = 32,
             keep_maps: bool = False) -> Result:
    """The pictures of Euler steps over timesteps evenly spaced from 999 to 0, and then to no noise.

    Noise is drawn on the CPU, so that a seed gives the same picture on every device.
    """
    device = next(model.unet.parameters()).device
    alphas = alphas_cumprod().double()
    table = ((1 - alphas) / alphas).sqrt()
    t = torch.linspace(TIMESTEPS - 1, 0, steps, dtype=torch.float64)
    low = t.floor().long().clamp(max=TIMESTEPS - 2)
    log_sigma = torch.lerp(table[low].log(), table[low + 1].log(), t - low)
    sigmas = [*log_sigma.exp().tolist(), 0.0]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(prompts), 4, edge, edge, generator=generator).to(device) * sigmas[0]
    context = model.text(prompt_ids(prompts + [""] * len(prompts), model.encode, device)).float()
    maps = []
    for index in range(steps):
        sigma = sigmas[index]
        scaled = (x / (sigma**2 + 1) ** 0.5).repeat(2, 1, 1, 1)
        predicted, found = unet_with_maps(model.unet, scaled, t[index].float().to(device).repeat(len(scaled)), context)
        conditional, empty = predicted.float().chunk(2)
        if keep_maps:
            width = edge // 2 if edge < 48 else edge // 4
            maps.append(found[width][: len(prompts)].unflatten(1, (width, width)).float().cpu())
        x = x + (empty + guidance * (conditional - empty)) * (sigmas[index + 1] - sigma)
    pictures = torch.cat([model.vae.decode(part / model.scale).float() for part in x.split(16)])
    return Result(pictures.clamp(-1, 1), maps)


def token_map(maps: torch.Tensor, row: int, places: list[int]) -> torch.Tensor:
    """A word's map: the mean over its tokens."""
    return maps[row][..., places].mean(-1)
