"""The samplers of AUTOMATIC1111's WebUI, Forge, reForge and Forge Classic on a sigma map.

A sampler is one file: a function ``(run, x, **options) -> x`` and its row (see :mod:`row`). The
function walks the steps of a :class:`run.Run` and states k-diffusion's update once, as a formula of
noise levels. ``step.per_pixel`` evaluates the formula on maps and on the host's scalars. The latent
``x`` is ``[B, C, H, W]``.

To add a sampler, put its file into this folder. The tables find its ``ROWS``.
"""

from __future__ import annotations

from .. import samplers
from .labels import WEBUIS
from .row import Labels, Sampler, labelled, rows_in

SAMPLERS: dict[str, Sampler] = {row.name: row for row in rows_in(samplers) if {"a1111", "forge"} & set(row.hosts)}
"""Our samplers by the ``__name__`` of the host's function."""

CLASSIC: dict[str, Sampler] = {row.name: row for row in rows_in(samplers) if "classic" in row.hosts}
"""Our samplers for Forge Classic, whose k-diffusion is ComfyUI's."""

LABELS: Labels = labelled(SAMPLERS.values(), WEBUIS)
"""The samplers by the names under which the WebUIs show them."""

UNFIT = {"DPM adaptive": "chooses its own steps"}
"""Samplers of the hosts that no run can take, by label, and why."""
