"""The device that a command works on."""

from __future__ import annotations

import torch

from ..errors import SettingsError


def device_of(name: str | None) -> torch.device:
    """The device of that name: cpu, cuda, cuda:1 and so on; for None the GPU where there is one.

    Raises :class:`SettingsError` for any other name, or a GPU that is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise SettingsError(f"--device {name!r:.40} is unknown; it must be cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"--device {name!r}: torch finds no such GPU")
    return device
