"""Which WebUI the suite runs on, and what is particular to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = os.environ.get("ASYNDM_WEBUI")

_SKIPPING = ("--skip-prepare-environment", "--skip-torch-cuda-test", "--skip-python-version-check")
_COMMON = (*_SKIPPING, "--skip-version-check", "--no-download-sd-model", "--do-not-download-clip", "--no-hashing")
_SAMPLERS = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler"),
    *("LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "Restart", "DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"),
)
_SCHEDULES = (
    *("automatic", "uniform", "karras", "exponential", "polyexponential", "sgm_uniform", "kl_optimal"),
    *("align_your_steps", "simple", "normal", "ddim", "beta"),
)
_SDE_OF_ONE_STEP = ("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE")


@dataclass(frozen=True)
class Family:
    """A kind of WebUI.

    ``flags``: how it is started. ``options``: of its configuration, beside the common ones. ``forge``: knows
    checkpoints by their weights (:mod:`tiny_checkpoints.forge`). ``not_one_step``: samplers whose own functions fail
    with one step. ``hires``: what a request with hires fix needs beside its own fields, if it has it not.
    ``lacks``: features by name, and why they are not there; rows and tests that need one are skipped with the reason.
    """

    name: str
    flags: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    forge: bool = False
    samplers: tuple[str, ...] = _SAMPLERS
    schedules: tuple[str, ...] = _SCHEDULES
    not_one_step: tuple[str, ...] = ()
    hires: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)

    def asked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """``request`` as this WebUI wants it."""
        return {**(self.hires if request.get("enable_hr") else {}), **request}

    def lacking(self, row: Any) -> str | None:
        """Why ``row`` (a :class:`requests_table.Row`) cannot be asked of it; None if it can."""
        return next((self.lacks[feature] for feature in _features(row) if feature in self.lacks), None)


def _features(row: Any) -> Iterator[str]:
    """What a row needs that not every WebUI has."""
    request = row.request
    yield f"checkpoint {row.checkpoint}"
    yield f"checkpoint {str(request.get('refiner_checkpoint')).removeprefix('tiny-')}"
    yield from (f"option {name}" for name in row.options)
    yield f"script {request.get('script_name')}"
    yield f"sampler {request.get('sampler_name')}"
    if "<hypernet:" in request.get("prompt", ""):
        yield "hypernetworks"


A1111 = Family(
    "A1111",
    (*_COMMON, "--use-cpu", "all", "--no-half"),
    # "Automatic" attention is InvokeAI's on a CPU, half as fast.
    {"cross_attention_optimization": "sdp - scaled dot product"},
    not_one_step=_SDE_OF_ONE_STEP,
)

_NO_HYPERNETWORKS = "Forge has no hypernetworks"
FORGE = Family(
    "Forge",
    (*_COMMON, "--skip-install", "--always-cpu", "--attention-pytorch"),
    {"live_previews_enable": False},
    forge=True,
    samplers=(*_SAMPLERS, "HeunPP2", "IPNDM", "IPNDM_V", "DEIS", "DDPM"),
    schedules=(*_SCHEDULES, "turbo", "align_your_steps_GITS", "align_your_steps_11", "align_your_steps_32"),
    hires={"hr_additional_modules": ["Use same choices"], "hr_cfg": 5},
    lacks={
        "hypernetworks": _NO_HYPERNETWORKS,
        "option sd_hypernetwork": _NO_HYPERNETWORKS,
        "checkpoint sd1-edit": "Forge does not know InstructPix2Pix checkpoints",
        "checkpoint sdxl-refiner": "there is no tiny refiner of SDXL that Forge would know",
        "option hypertile_enable_unet": "Forge has no HyperTile any more",
        "option lora_functional": "Forge has one way to apply a LoRA",
        "option sd_lora": "Forge has no LoRA of the options",
        "option fp8_storage": "Forge has its own way to keep weights in eight bits",
        "memory flags": "Forge has no --medvram, --lowvram and --opt-channelslast",
        "attention options": "Forge chooses its attention by flags",
        "unCLIP": "Forge does not read the kind of a checkpoint from its YAML",
    },
)


def _family() -> Family:
    return FORGE if (Path(FOLDER or "") / "modules_forge").is_dir() else A1111


HOST = _family()


def commit() -> str:
    """The WebUI's commit, as its checkout says."""
    git = Path(FOLDER) / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        ref = head.removeprefix("ref: ")
        if (git / ref).exists():
            return (git / ref).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
        return next(line.split()[0] for line in packed if line.endswith(ref))
    except (OSError, StopIteration):
        return "unknown"
