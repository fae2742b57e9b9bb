"""The sinusoids of timesteps, as transformers of flows make them outside of their modules."""

from __future__ import annotations

from torch import Tensor

from .pixel_timesteps import timestep_embedding

TIME = 1000
"""The factor from a flow's timesteps, which are from 0 to 1, to those of the sinusoids."""


def sinusoids(timesteps: Tensor, own: Tensor) -> Tensor:
    """The sinusoids of ``timesteps [k]``, in the shape and type of a model's ``own [n, …, E]``."""
    return timestep_embedding(TIME * timesteps, own.shape[-1]).view(-1, *own.shape[1:]).to(own.dtype)
