"""The samplers of Forge Neo on a sigma map.

Neo has k-diffusion as ComfyUI carries it on. Its own forms stand in this folder: they are written
in half log SNR, so that they hold for flow models too, and have other last steps and draws of noise
under the old names. The option ``flow`` is True for a flow model. What Neo shares with the other
WebUIs, or has with another option, has its row in the folder above.
"""

from __future__ import annotations

from ... import samplers
from .. import neo
from ..labels import NEO
from ..row import Labels, Sampler, labelled, rows_in

SAMPLERS: dict[str, Sampler] = {row.name: row for row in rows_in(samplers, neo) if "neo" in row.hosts}
"""Our samplers by the ``__name__`` of the host's function."""

LABELS: Labels = labelled(SAMPLERS.values(), NEO)
"""The samplers by the names under which Neo shows them."""
