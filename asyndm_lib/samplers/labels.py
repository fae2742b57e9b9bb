"""The labels of the samplers, in the order in which the WebUIs show them.

They are known without torch. The samplers themselves are in ``table`` and ``neo.table``.
"""

from __future__ import annotations

WEBUIS = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler"),
    *("LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "Restart", "DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"),
    *("HeunPP2", "IPNDM", "IPNDM_V", "DEIS", "DDPM"),
)
"""The WebUIs' order; from HeunPP2 on they are Forge's."""

NEO = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 3M SDE", "DPM++ 2s a RF", "Euler a", "Euler", "ER SDE", "LCM"),
    *("LMS", "Heun", "DPM2", "Res Multistep", "Kohaku LoNyu Yog", "Restart", "UniPC", "DDIM", "PLMS"),
    *("DPM++ 2M CFG++", "Euler a CFG++", "Euler CFG++"),
)
"""Forge Neo's order."""
