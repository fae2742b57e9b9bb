"""The WebUI that the suite runs on, and what is particular to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = os.environ.get("ASYNDM_WEBUI")

_SKIPPING = ("--skip-prepare-environment", "--skip-torch-cuda-test", "--skip-python-version-check")
_COMMON = (*_SKIPPING, "--skip-version-check", "--no-hashing")
_NO_DOWNLOADS = ("--no-download-sd-model", "--do-not-download-clip")
_SAMPLERS = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler"),
    *("LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "Restart", "DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"),
)
_SCHEDULES = (
    *("automatic", "uniform", "karras", "exponential", "polyexponential", "sgm_uniform", "kl_optimal"),
    *("align_your_steps", "simple", "normal", "ddim", "beta"),
)
_BEHIND_LEGEND = 3 * 3 + 1
_SDE_OF_ONE_STEP = ("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE")


@dataclass(frozen=True)
class Family:
    """A kind of WebUI.

    ``flags``: how it is started. ``models``: the flag for its folder of models. ``options``: of its
    configuration, beside the common ones. ``forge``: whether it knows checkpoints by their weights
    (:mod:`tiny_checkpoints.forge`). ``lazy``: whether it has no model before the first picture.
    ``others``: samplers that no run can take either, and that are not tried. ``not_one_step``:
    samplers that fail with one step. ``rising``: schedule types that rise on the way. ``refused``:
    samplers that no run can take, and a part of the message. ``hires``, ``infotext``: what a
    request with hires fix, or with an infotext, needs beside its own fields. ``instead``: the
    values that it has in place of others in requests. ``scripts``: the arguments of scripts that
    take others here. ``dropped``: options of how many models it keeps, which it has not and needs
    not. ``axes``: the numbers of some axes of the X/Y/Z plot in txt2img. ``plot_numbers``: the
    numbers before the plot's last argument. ``plot_more``: the plot's arguments of its own, behind
    "Draw legend". ``multiple``: what it rounds the sizes of pictures to. ``page``: what its page
    begins with. ``extensions``: those that it brings, by name, where their script or its arguments
    are not Forge's. ``lacks``: features by name, and why they are not there. Rows and tests that
    need one are skipped with the reason.
    """

    name: str
    flags: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    forge: bool = False
    lazy: bool = False
    others: tuple[str, ...] = ()
    samplers: tuple[str, ...] = _SAMPLERS
    schedules: tuple[str, ...] = _SCHEDULES
    not_one_step: tuple[str, ...] = ()
    rising: tuple[str, ...] = ()
    models: str = "--models-dir"
    refused: Mapping[str, str] = field(default_factory=lambda: {"DPM adaptive": "chooses its own steps"})
    instead: Mapping[tuple[str, str], str] = field(default_factory=dict)
    scripts: Mapping[str, list[Any]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    axes: Mapping[str, int] = field(default_factory=dict)
    plot_numbers: tuple[int, ...] = (0,)
    plot_more: tuple[Any, ...] = ()
    multiple: int = 1
    page: Mapping[str, Any] = field(default_factory=dict)
    extensions: Mapping[str, tuple[str, list[Any]]] = field(default_factory=dict)
    hires: Mapping[str, Any] = field(default_factory=dict)
    infotext: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)

    def begins_with(self, checkpoint: Path) -> tuple[Any, ...]:
        """The flags that give it its first checkpoint, where its options do not."""
        return ("--ckpt", checkpoint) if self.models == "--models-dir" else ()

    def size(self, *sides: int) -> tuple[int, ...]:
        """The size of a picture for which ``sides`` were asked."""
        return tuple(max((side + self.multiple // 2) // self.multiple, 1) * self.multiple for side in sides)

    def asked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """``request`` as this WebUI wants it."""
        asked = {**(self.hires if request.get("enable_hr") else {}), **request}
        if "infotext" in request:
            asked = {**self.infotext, **asked}
        for (key, value), other in self.instead.items():
            if asked.get(key) == value:
                asked[key] = other
        if request.get("script_name") in self.scripts:
            asked["script_args"] = self.scripts[request["script_name"]]
        if request.get("script_name") == "x/y/z plot":
            args = request["script_args"]
            asked["script_args"] = [*args[:_BEHIND_LEGEND], *self.plot_more, *args[_BEHIND_LEGEND:]]
        if "override_settings" in asked:
            options = asked["override_settings"]
            asked["override_settings"] = {name: options[name] for name in options if name not in self.dropped}
        return asked

    def lacking(self, row: Any) -> str | None:
        """Why ``row`` (a :class:`requests_table.Row`) cannot be asked of it; None if it can."""
        return next((self.lacks[feature] for feature in _features(row) if feature in self.lacks), None)


def _features(row: Any) -> Iterator[str]:
    """What a row needs that not every WebUI has."""
    request = row.request
    yield f"row {row.name}"
    yield f"checkpoint {row.checkpoint}"
    yield f"checkpoint {str(request.get('refiner_checkpoint')).removeprefix('tiny-')}"
    yield from (f"option {name}" for name in row.options)
    yield f"previews {row.options.get('show_progress_type')}"
    yield f"script {request.get('script_name')}"
    yield from (f"extension {name}, {row.kind}" for name in request.get("alwayson_scripts", {}))
    yield f"sampler {request.get('sampler_name')}"
    yield f"sampler {request.get('hr_sampler_name')}"
    yield f"scheduler {request.get('scheduler')}"
    yield f"upscaler {request.get('hr_upscaler')}"
    if "<hypernet:" in request.get("prompt", ""):
        yield "hypernetworks"


A1111 = Family(
    "A1111",
    (*_COMMON, *_NO_DOWNLOADS, "--use-cpu", "all", "--no-half"),
    # "Automatic" attention is InvokeAI's on a CPU, half as fast.
    {"cross_attention_optimization": "sdp - scaled dot product"},
    not_one_step=_SDE_OF_ONE_STEP,
    axes={"Steps": 4, "Sampler": 9, "Checkpoint name": 11},
)

_NO_HYPERNETWORKS = "Forge has no hypernetworks"
FORGE = Family(
    "Forge",
    (*_COMMON, *_NO_DOWNLOADS, "--skip-install", "--always-cpu", "--attention-pytorch"),
    {"live_previews_enable": False},
    forge=True,
    lazy=True,
    samplers=(*_SAMPLERS, "HeunPP2", "IPNDM", "IPNDM_V", "DEIS", "DDPM"),
    schedules=(*_SCHEDULES, "turbo", "align_your_steps_GITS", "align_your_steps_11", "align_your_steps_32"),
    axes={"Steps": 4, "Sampler": 10, "Checkpoint name": 12},
    hires={"hr_additional_modules": ["Use same choices"], "hr_cfg": 5},
    infotext={"styles": []},  # those of the infotext its API fails on
    lacks={
        "hypernetworks": _NO_HYPERNETWORKS,
        "option sd_hypernetwork": _NO_HYPERNETWORKS,
        "checkpoint sd1-edit": "Forge does not know InstructPix2Pix checkpoints",
        "option hypertile_enable_unet": "Forge has no HyperTile any more",
        "option lora_functional": "Forge has one way to apply a LoRA",
        "option sd_lora": "Forge has no LoRA of the options",
        "option sd_vae_encode_method": "Forge's TAESD wants a download",
        "option fp8_storage": "Forge has its own way to keep weights in eight bits",
        "script prompts from file or textbox": "Forge's own grid of this script differs from call to call",
        "script img2img alternative test": "Forge's own script fails: it asks its model for what A1111's has",
        "unknown LoRA": "Forge's own loader fails on the name of a LoRA that is not there",
        "batches of DDPM": "Forge's DDPM makes other pictures in a batch than alone: its noise is of no picture's seed",
        "memory flags": "Forge has no --medvram, --lowvram and --opt-channelslast",
        "attention options": "Forge chooses its attention by flags",
        "neighbours": "Forge brings its own, in test_host_forge.py; these hook into what A1111's model is made of",
        "unCLIP": "Forge does not read the kind of a checkpoint from its YAML",
    },
)

_NEOS = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 3M SDE", "Euler a", "Euler", "ER SDE", "LCM", "LMS", "Heun"),
    *("DPM2", "Res Multistep", "Kohaku LoNyu Yog", "Restart", "UniPC", "DDIM", "PLMS"),
    *("DPM++ 2M CFG++", "Euler a CFG++", "Euler CFG++"),
)
_NEOS_SCHEDULES = (
    *("automatic", "karras", "exponential", "polyexponential", "normal", "simple", "uniform", "sgm_uniform"),
    *("linear_quadratic", "kl_optimal", "ddim", "align_your_steps", "beta", "turbo", "bong_tangent", "flow_match"),
    "flux2",
)
_KINDS = ("txt2img", "img2img")
_ELSEWHERE = (
    *("freeu integrated (sd 1.x, sd 2.x, sdxl)", "kohya hrfix integrated", "perturbedattentionguidance integrated"),
    *("selfattentionguidance integrated (sd 1.x, sd 2.x, sdxl)", "dynamicthresholding (cfg-fix) integrated"),
    *("stylealign integrated", "never oom integrated"),
)
_GONE = (
    *("batch_cond_uncond", "pad_cond_uncond", "pad_cond_uncond_v0", "use_old_scheduling", "enable_quantization"),
    *("use_old_karras_scheduler_sigmas", "uni_pc_order", "uni_pc_variant", "uni_pc_skip_type"),
    *("uni_pc_lower_order_final", "hires_fix_refiner_pass", "refiner_switch_by_sample_steps"),
    *("no_dpmpp_sde_batch_determinism", "use_downcasted_alpha_bar", "live_preview_content"),
)
_SCRIPTS_GONE = ("outpainting mk2", "poor man's outpainting", "img2img alternative test")
_LATENT_UPSCALERS = ("bicubic antialiased", "nearest-exact")
_BACK = ("script prompts from file or textbox", "option sd_vae_encode_method", "unknown LoRA")
"""What Forge lacks and Forge Neo has."""
NEO = Family(
    "Forge Neo",
    (*_COMMON, "--skip-install", "--cpu", "--use-pytorch-cross-attention"),
    {
        "live_previews_enable": False,
        "show_progress_type": "RGB",
        "refiner_use_steps": True,  # else it takes over at a sigma
        "show_refiner": True,  # else one that took over in place stays
        "VERSION_UID": "PY313",
    },
    forge=True,
    lazy=True,
    samplers=_NEOS,
    schedules=_NEOS_SCHEDULES,
    not_one_step=("UniPC",),
    models="--model-ref",
    refused={"DPM++ 2s a RF": "for rectified flow models only"},
    instead={("hr_upscaler", "Latent"): "None", ("hr_upscaler", "Lanczos"): "None"},
    scripts={"sd upscale": [16, "None", 1.0, False]},
    dropped=("sd_checkpoints_limit",),
    axes={"Steps": 2, "Sampler": 12, "Checkpoint name": 15},
    plot_numbers=(0, 0),
    multiple=64,
    # It pastes no text into a field that has no value yet, as the prompts have at the first start.
    page={f"{tab}/{name}/value": "" for tab in _KINDS for name in ("Prompt", "Negative Prompt")},
    hires={**FORGE.hires, "hr_upscaler": "None"},
    infotext=FORGE.infotext,
    lacks={
        **{name: why.replace("Forge", "Forge Neo") for name, why in FORGE.lacks.items() if name not in _BACK},
        **{f"script {name}": f"Forge Neo has no script {name}" for name in _SCRIPTS_GONE},
        **{f"upscaler Latent ({kind})": "Forge Neo has no latent upscalers" for kind in _LATENT_UPSCALERS},
        **{f"sampler {name}": f"Forge Neo has no sampler {name}" for name in {*_SAMPLERS, "DPM adaptive"} - {*_NEOS}},
        **{f"scheduler {name}": f"Forge Neo has no schedule {name}" for name in {*_SCHEDULES} - {*_NEOS_SCHEDULES}},
        **{f"option {name}": f"Forge Neo has no option {name}" for name in _GONE},
        **{f"extension {name}, {kind}": f"Forge Neo does not bring {name}" for name in _ELSEWHERE for kind in _KINDS},
        "extension multidiffusion integrated, txt2img": "Forge Neo has MultiDiffusion for img2img only",
        "previews Full": "Forge Neo has no full previews",
        "previews Approx NN": "Forge Neo's previews of this kind want a download",
        "checkpoint sd2-v": "Forge Neo does not know Stable Diffusion 2",
        "checkpoint sdxl-refiner": "Forge Neo does not know SDXL's refiner",
    },
)

_CFGPPS = (
    *("Euler", "Euler Ancestral", "DPM++ 2S Ancestral", "DPM++ 2M", "DPM++ SDE", "DPM++ 3M SDE", "Euler DY"),
    *("Euler SMEA DY", "Euler A DY", "DPM++ 2M DY", "RES Multistep", "RES Multistep Ancestral", "Gradient Estimation"),
)
_REFORGES = (
    *("Euler SMEA Dy", "Euler Negative", "Euler Negative Dy", "DPM++ SDE Classic", "ER SDE", "Kohaku_LoNyu_Yog"),
    *("RES Multistep", "RES Multistep Ancestral", "Gradient Estimation", "SEEDS 2 DP", "SEEDS 3 DP", "SA-Solver"),
    *("SA-Solver-Pece", "DPM++ 2M DY", "DPM++ 3M DY", "DPM++ 3M SDE DY", "DDPM", "IPNDM", "IPNDM_V", "RES Solver"),
    *(f"ODE ({solver})" for solver in ("Bosh3", "Fehlberg2", "Adaptive Heun", "Dopri5")),
    *("ODE Custom", "Euler A Turbo", "DPM++ 2M Turbo", "DPM++ 2M SDE Turbo", "Euler A Comfy", "Euler A Comfy RF"),
    *("Heun Comfy", "DPM++ 2S Ancestral Comfy", "DPM++ 2S Ancestral Comfy RF", "DPM++ SDE Comfy", "DPM++ 2M SDE Comfy"),
    *("DPM++ 3M SDE Comfy", "DPM++ 2S Ancestral CFG++ Dyn", "DPM++ 2S Ancestral CFG++ Intern", "Custom Sampler"),
    *(f"{name} CFG++" for name in _CFGPPS),
)
_COMFYS = "is not AUTOMATIC1111's own"
_NOT_IN_REFORGE = (
    *("checkpoint sd1-edit", "option sd_lora"),
    *("option sd_vae_encode_method", "script prompts from file or textbox", "script img2img alternative test"),
    "batches of DDPM",
)
"""What Forge lacks and reForge has."""
_FORGES_LATER = ("perturbedattentionguidance integrated", "stylealign integrated")
REFORGE = Family(
    "reForge",
    FORGE.flags,
    # Left to itself it also looks for text encoders beside the checkpoints, and knows their kind by
    # their many layers.
    {**FORGE.options, "sd_text_encoder": "None"},
    forge=True,
    samplers=tuple(name for name in _SAMPLERS if name != "DDIM CFG++"),
    schedules=(
        *_SCHEDULES,
        *("sinusoidal_sf", "invcosinusoidal_sf", "react_cosinusoidal_dynsf", "align_your_steps_custom", "turbo"),
        *("cosine", "cosine-exponential blend", "phi", "laplace", "karras dynamic"),
        *("align_your_steps_GITS", "align_your_steps_11", "align_your_steps_32"),
    ),
    rising=("cosine-exponential blend",),
    refused={
        "DPM adaptive": "chooses its own steps",
        "Euler Dy": "is not one that AsynDM knows",
        **dict.fromkeys(("HeunPP2", "DEIS", "Euler Comfy", "DPM++ 2M Comfy"), _COMFYS),
    },
    others=_REFORGES,
    axes=A1111.axes,
    plot_more=(False, False, 0),
    hires={"hr_cfg": 5},
    extensions={
        "FreeU": ("freeu integrated", [True, 1.3, 1.4, 0.9, 0.6]),
        "SAG": ("selfattentionguidance integrated", [True, 0.75, 2.0]),
        "Dynamic Thresholding": (
            "dynamicthresholding (cfg-fix) integrated",
            [True, False, 2.0, 0.95, "Constant", 0.0, "Constant", 0.0, 4.0, "enable", "MEAN", "AD", 1.0],
        ),
        "HyperTile": ("hypertile integrated", [True, 128, 2, 0, False]),
        "MultiDiffusion": ("multidiffusion integrated", [True, "MultiDiffusion", 64, 64, 16, 1, "random"]),
    },
    lacks={
        **{name: why.replace("Forge", "reForge") for name, why in FORGE.lacks.items() if name not in _NOT_IN_REFORGE},
        **{f"extension {name}, txt2img": f"reForge does not bring {name}" for name in _FORGES_LATER},
        **dict.fromkeys(("hypernetworks", "option sd_hypernetwork"), "reForge applies no hypernetworks"),
        "option lora_functional": "reForge has this option and does nothing by it",
        "option fp8_storage": "reForge has this option and does nothing by it",
        "sampler DDIM CFG++": "reForge has no sampler DDIM CFG++",
        "option hypertile_enable_unet": "reForge has HyperTile as a built-in extension",
        "unCLIP": "reForge knows unCLIP checkpoints by their weights, and there is no tiny one",
    },
)

_CLASSICS = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler"),
    *("LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "Restart", "DDIM", "PLMS", "UniPC", "LCM"),
    *(f"{name} Karras" for name in ("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE")),
    *(f"{name} Karras" for name in ("LMS", "DPM2", "DPM2 a", "DPM++ 2S a", "LCM", "DDPM")),
    *(f"{name} Exponential" for name in ("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE")),
    *(f"{name} Turbo" for name in ("Euler A", "DPM++ 2M", "DPM++ 2M SDE")),
    *(f"{name} SGMUniform" for name in ("Euler", "Euler A", "DPM++ 2M", "DPM++ 2M SDE")),
    "DDPM",
)
_IN_LABELS = "the schedules of Forge Classic stand in its samplers' names"
_NOT_BROUGHT = (*(name for name in _ELSEWHERE if name != "never oom integrated"), "multidiffusion integrated")
_UNSEEDED = (
    *("Euler A Turbo", "DPM++ 2M SDE Turbo", "Euler A SGMUniform", "DPM++ 2M SDE SGMUniform", "LCM Karras"),
    *("DDPM", "DDPM Karras"),
)
_NOT_IN_CLASSIC = (
    *("batch_cond_uncond", "pad_cond_uncond", "pad_cond_uncond_v0", "s_min_uncond_all"),
    *("refiner_switch_by_sample_steps", "enable_quantization"),
)
CLASSIC = Family(
    "Forge Classic",
    (*_COMMON, "--no-download-sd-model", "--skip-install", "--always-cpu", "--attention-pytorch"),
    # Its "Paste" else wants an empty negative prompt. RescaleCFG is no script without its option.
    {"live_previews_enable": False, "paste_safe_guard": False, "show_rescale_cfg": True},
    forge=True,
    samplers=_CLASSICS,
    schedules=(),
    models="--model-ref",
    scripts={"sd upscale": [16, "Lanczos", 1.1]},
    axes=A1111.axes,
    extensions={"RescaleCFG": ("rescalecfg", [0.7])},
    lacks={
        **{name: why.replace("Forge", "Forge Classic") for name, why in FORGE.lacks.items()},
        **dict.fromkeys((f"scheduler {name}" for name in _SCHEDULES[1:]), _IN_LABELS),
        **{f"option {name}": f"Forge Classic has no option {name}" for name in _NOT_IN_CLASSIC},
        **{f"extension {name}, txt2img": f"Forge Classic does not bring {name}" for name in _NOT_BROUGHT},
        "sampler DDIM CFG++": "Forge Classic has no sampler DDIM CFG++",
        "option fp8_storage": "Forge Classic has this option for Nvidia's cards only",
        "own defaults": "Forge Classic keeps no accordion among the page's own defaults",
        "previews Full": "Forge Classic has no full previews",
        "previews Approx NN": "Forge Classic's previews of this kind want a download",
        "row inpainting, only masked, nothing masked": "Forge Classic fails on an empty mask",
        "script outpainting mk2": "Forge Classic has no script outpainting mk2",
        "script poor man's outpainting": "Forge Classic has no script poor man's outpainting",
        **{f"batches of {name}": "its noise in Forge Classic is of no picture's seed" for name in _UNSEEDED},
    },
)


def _family() -> Family:
    folder = Path(FOLDER or "")
    if not (folder / "modules_forge").is_dir():
        return A1111
    if not (folder / "backend").is_dir():
        return REFORGE if (folder / "k_diff").is_dir() else CLASSIC
    return NEO if (folder / "modules_forge" / "packages").is_dir() else FORGE


HOST = _family()


def version() -> str:
    """The WebUI's commit, as its checkout says, or the release that it says it is."""
    return _commit() or _release() or "unknown"


def _commit() -> str | None:
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
        return None


def _release() -> str | None:
    try:
        text = (Path(FOLDER) / "modules_forge" / "forge_version.py").read_text()
    except OSError:
        return None
    said = re.search(r'^release = "(.+)"', text, re.MULTILINE)
    return f"release {said[1]}" if said else None
