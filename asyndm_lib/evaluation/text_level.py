"""Another noise level for the prompt's tokens of a transformer, to see what theirs is worth.

The method leaves the prompt at the host's own level. Code for a timestep of every token that others
have published gives it the mean of the picture's embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from ..hosts.standalone.flow import TIMESTEPS
from ..hosts.standalone.mmdit import MMDiT


@contextmanager
def text_at_mean(model: MMDiT, pixels: Tensor, sigma: Tensor) -> Iterator[None]:
    """In the ``with`` the prompt of every row has the mean of its picture tokens' embeddings of
    time.

    It is around one call of ``model``, with rows whose pixels are at the sigmas ``pixels`` ``[n, 1,
    H, W]`` where the host is at ``sigma``.
    """
    tokens = pixels[:, 0, :: model.patch_size, :: model.patch_size].flatten(1)
    alike = (tokens == tokens[:, :1]).all(dim=1)
    own = torch.where(alike, tokens[:, 0], sigma.to(tokens))  # what the row as a whole is told

    def embedded(levels: Tensor) -> Tensor:
        # Its forward, and not a call of it, which would be taken for the model's own.
        flat = model.t_embedder.forward(TIMESTEPS * levels.flatten(), torch.float32)
        return flat.unflatten(0, levels.shape)

    shift = embedded(tokens).mean(dim=1) - embedded(own)
    with ExitStack() as stack:
        for block in model.joint_blocks:
            hook = block.context_block.adaLN_modulation.register_forward_pre_hook(lambda module, args: args[0] + shift)
            stack.callback(hook.remove)
        yield
