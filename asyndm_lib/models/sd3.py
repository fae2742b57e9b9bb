"""The transformer of Stable Diffusion 3 and 3.5 (MMDiT; Esser et al. 2024), under the names of its
reference checkpoints, which AUTOMATIC1111's WebUI, Forge and our own class share.

Time enters through the ``adaLN_modulation`` of the blocks, and picture and text attend to each
other in one joint attention. A cell is a token of the picture: a patch of 2×2 latent pixels. The
text has the host's own noise level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ..errors import Unsupported
from .family import CellTimesteps, Size, TokenMaps
from .parts.attention_sum import summed
from .parts.joint_maps import AttentionMaps, JointLayer, JointLayers, OutputMaps, fused
from .parts.own_pass import OwnPass
from .parts.reach import check_reach
from .parts.tabled_modulation import TabledModulation
from .parts.token_modulation import Modulation, ModulationSites, TokenModulation

PARTS = ("x_embedder", "t_embedder", "context_embedder", "joint_blocks", "final_layer")
"""The modules by which such a transformer is known."""

RULE = "attention"
"""What token maps are by default: of the :data:`RULES`. On the embedded transformer they lie on
their objects far better by this one (docs/EVALUATION.md)."""

BLOCKS = (9 / 24,)
"""The blocks that token maps are read of, as shares of the depth. It is the published one, and the
best of the embedded transformer's."""

RULES: dict[str, Callable[[JointLayers], TokenMaps]] = {
    "attention": partial(AttentionMaps, summed=fused),
    "output": OutputMaps,
}
"""What a token map can be; see :mod:`parts.joint_maps`."""


@dataclass(frozen=True)
class MMDiT:
    """The family of Stable Diffusion 3.

    ``timesteps_of`` and ``token_maps_of`` are the forms of the two observers. ``blocks`` are those
    that token maps are read of, as shares of the depth.
    """

    timesteps_of: Callable[[ModulationSites], CellTimesteps] = TabledModulation
    token_maps_of: Callable[[JointLayers], TokenMaps] = RULES[RULE]
    blocks: Sequence[float] = BLOCKS
    name = "Stable Diffusion 3"

    def matches(self, model: nn.Module) -> bool:
        """Whether ``model`` has joint blocks."""
        return hasattr(model, "joint_blocks") and hasattr(model, "x_embedder")

    def check(self, model: Any) -> None:
        """Raise :class:`Unsupported` unless the parts of ``model`` are there and can be reached."""
        missing = [name for name in PARTS if not hasattr(model, name)]
        if not missing:
            needed = "x_block", "context_block"
            missing = [f"joint_blocks.{name}" for name in needed if not hasattr(model.joint_blocks[0], name)]
        if missing:
            raise Unsupported(
                f"this model ({type(model).__name__}) is not a Stable Diffusion 3 that AsynDM knows: "
                f"it has no {', '.join(missing)}"
            )
        check_reach(module for name, module in model.named_modules() if ".mlp" not in name)

    def side(self, model: Any) -> int:
        """The side of a patch."""
        side: int = model.patch_size
        return side

    def timesteps(self, model: Any) -> CellTimesteps:
        """A timestep for every token of the picture."""
        return self.timesteps_of(modulation_sites(model))

    def norms(self, model: nn.Module) -> None:
        """A transformer normalises each token by itself."""

    def token_maps(self, model: Any, latent: Size, piece: Size | None = None) -> TokenMaps:
        """What reads the token maps."""
        side, (height, width) = self.side(model), piece or latent
        size = -(-height // side), -(-width // side)
        return self.token_maps_of(joint_layers(model, size, self.blocks))


FAMILY = MMDiT()
PLAIN = MMDiT(TokenModulation, partial(AttentionMaps, summed=summed))
"""The same in the forms that state the method, which the fast ones are tested against."""


def own_pass(model: Any) -> OwnPass:
    """Tells the caller's own pass through ``model`` from an extension's."""
    return OwnPass(model, model.x_embedder)


def modulation_sites(model: Any) -> ModulationSites:
    """The places of ``model`` through which the timestep reaches its picture."""
    label = getattr(model, "y_embedder", None)
    labels = [] if label is None else [label]
    blocks = [block.x_block for block in model.joint_blocks]
    modulations = [Modulation(part.adaLN_modulation) for part in (*blocks, model.final_layer)]
    return ModulationSites(model.t_embedder, modulations, own_pass(model), labels, patches=model.x_embedder.proj)


def joint_layers(model: Any, size: Size, blocks: Sequence[float]) -> JointLayers:
    """The joint attentions to read of, in a picture of ``size`` tokens."""
    # Behind the last block nobody reads the text, and so it has no output.
    last = len(model.joint_blocks) - 2
    numbers = sorted({max(0, min(last, int(share * len(model.joint_blocks)))) for share in blocks})
    read = [model.joint_blocks[number] for number in numbers]
    layers = [JointLayer(block.context_block.attn, block.x_block.attn) for block in read]
    return JointLayers(layers, size, getattr(model, "register_length", 0), own_pass(model))
