"""Helpers that the training stages share: end of a stage, learning rate, averaged weights, pictures
on disk."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ...errors import AsynDMError


class StageTimer:
    """The progress of a stage that ends after some seconds or some iterations, whichever is
    given."""

    def __init__(self, seconds: float | None, iterations: int | None):
        if not seconds and not iterations:
            raise AsynDMError("give --seconds or --iterations")
        self.seconds, self.iterations = seconds, iterations
        self.count = 0
        self.start = time.monotonic()

    def restart(self) -> None:
        """Set the start to now (after compiling, say)."""
        self.start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def progress(self) -> float:
        """The share of the stage that is done. At 1 or more the stage has ended."""
        done = self.elapsed / self.seconds if self.seconds else 0.0
        return max(done, self.count / self.iterations if self.iterations else 0.0)


def learning_rate(peak: float, count: int, progress: float, decay_from: float, warmup: int = 200) -> float:
    """The learning rate: a linear warm-up, a plateau, and from ``decay_from`` of the stage on a
    cosine down to 1 %.

    There is no decay if ``decay_from`` is 1.
    """
    rate = peak * min(1.0, (count + 1) / warmup)
    if progress > decay_from:
        part = min(1.0, (progress - decay_from) / max(1e-6, 1 - decay_from))
        rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * part))
    return rate


class Average:
    """An exponential moving average of parameters."""

    def __init__(self, modules: nn.Module, decay: float = 0.999):
        self.live = list(modules.parameters())
        self.decay = decay
        self.mean = [p.detach().clone() for p in self.live]
        self.count = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters' present values."""
        self.count += 1
        weight = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters with their averages; a second call undoes it."""
        for mean, live in zip(self.mean, self.live, strict=True):
            keep = live.detach().clone()
            live.copy_(mean)
            mean.copy_(keep)


def save_weights(modules: dict[str, nn.Module], path: Path, **extra: torch.Tensor) -> None:
    """Write the half-precision state dicts of several modules in one safetensors file, keys
    prefixed with ``name.``."""
    from safetensors.torch import save_file

    tensors = {f"{name}.{key}": value.detach().to("cpu", torch.float16).contiguous()
               for name, module in modules.items() for key, value in module.state_dict().items()}
    path = Path(path)
    partial = path.with_suffix(".part")
    save_file({**tensors, **{key: value.detach().cpu().contiguous() for key, value in extra.items()}}, partial)
    partial.replace(path)


def load_weights(modules: dict[str, nn.Module], path: Path) -> dict[str, torch.Tensor]:
    """Fill modules from a file of :func:`save_weights`, and return all tensors of the file.

    Raises :class:`AsynDMError` for a file that is none of these modules.
    """
    tensors = read_weights(path)
    for name, module in modules.items():
        fill(module, tensors, f"{name}.", path)
    if "vae" in modules and "scale_factor" not in tensors:
        raise AsynDMError(f"{path} holds no scale_factor: it must be of the stage vae")
    return tensors


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file. Raises :class:`AsynDMError` that names any other file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise AsynDMError(f"{path} cannot be read as weights: {error}") from error


def fill(module: nn.Module, tensors: dict[str, torch.Tensor], prefix: str, path: Path) -> None:
    """Give a module the tensors under ``prefix``.

    Raises :class:`AsynDMError` that names ``path`` if they do not fit it.
    """
    own = {key.removeprefix(prefix): value.float() for key, value in tensors.items() if key.startswith(prefix)}
    if not own:
        raise AsynDMError(f"{path} holds no weights {prefix}…: it is of another stage, or of another model")
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        text = str(error).splitlines()[-1].strip()
        raise AsynDMError(f"the weights {prefix}… of {path} do not fit: {text}") from error


def encoder_digest(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Which encoder the autoencoder in a file of the stage vae has, uint8 ``[32]``.

    Training the decoder alone leaves it as it is.
    """
    digest = hashlib.sha256()
    for key in sorted(key for key in tensors if key.startswith(("vae.encoder.", "vae.quant_conv."))):
        digest.update(key.encode() + tensors[key].half().contiguous().numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def contact_sheet(pictures: torch.Tensor, columns: int, path: Path) -> None:
    """Write pictures ``[n, 3, h, w]`` in [-1, 1] side by side."""
    array = ((pictures.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    columns = min(columns, len(array))
    rows = [np.concatenate(list(array[index : index + columns]), 1)
            for index in range(0, len(array) // columns * columns, columns)]
    Image.fromarray(np.concatenate(rows)).save(path)
