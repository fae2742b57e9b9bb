"""A UNet of ComfyUI's engine and its clone, with one account of the model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ACCOUNT = ("patches", "backup")
"""The patches on the weights, and the weights behind those that are written into the model."""


@contextmanager
def one_account(unet: Any, clone: Any) -> Iterator[None]:
    """Inside the ``with`` ``clone`` keeps the account of ``unet``, which has it back afterwards.

    A clone that the host makes has copies of the patches, and nothing of the weights behind them:
    an extension that takes a LoRA out of the engine's UNet in mid-picture would take out nothing.
    What is done by way of ``unet`` itself, which the host's list of loaded models keeps, stands.
    """
    before = {name: getattr(unet, name) for name in ACCOUNT}
    for name, account in before.items():
        setattr(clone, name, account)
    try:
        yield
    finally:
        for name, account in before.items():
            if getattr(clone, name) is not account:
                setattr(unet, name, getattr(clone, name))
