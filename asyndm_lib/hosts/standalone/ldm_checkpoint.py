"""Stable Diffusion 1 and 2 checkpoints in ldm format, built from the ``ldm`` package's own parts.

A flow by a transformer of our own shares all but the transformer with such a checkpoint.

A checkpoint is a file of weights and a YAML that names the classes they belong to. The names are
looked up in a short list here. Nothing that a YAML says is imported or run.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ...errors import Unsupported
from . import weights_file
from .mmdit import MMDiT
from .text_encoders import Clip, OpenClip, TextEncoder
from .weights_file import in_one_line

with redirect_stdout(io.StringIO()):  # ldm announces on import that xformers is not there
    from ldm.modules.diffusionmodules.model import Decoder
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

MODEL = ("ldm.models.diffusion.ddpm.LatentDiffusion",)
FLOW = "asyndm_lib.hosts.standalone.flow.FlowDenoiser"
TRANSFORMER = ("asyndm_lib.hosts.standalone.mmdit.MMDiT",)
UNET = ("ldm.modules.diffusionmodules.openaimodel.UNetModel",)
AUTOENCODER = ("ldm.models.autoencoder.AutoencoderKL",)
CLIP = "ldm.modules.encoders.modules.FrozenCLIPEmbedder"
OPEN_CLIP = "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"


class Autoencoder(nn.Module):
    """The half of ``AutoencoderKL`` that text-to-image needs. Its parts have the names of its
    weights."""

    def __init__(self, embed_dim: int, ddconfig: Mapping[str, Any]):
        super().__init__()
        self.decoder = Decoder(**ddconfig)
        self.post_quant_conv = nn.Conv2d(embed_dim, ddconfig["z_channels"], 1)

    def forward(self, z: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]``, about -1 to 1, of the latents ``z [B, C, h, w]``."""
        return self.decoder(self.post_quant_conv(z))


@dataclass
class Checkpoint:
    """A loaded model.

    ``name``: the file's. ``diffusion_model``: the UNet or transformer. ``parameterization``: what
    it predicts, "eps", "v", or "flow". ``alphas_cumprod``: ``[T]``; a flow has none. ``scale``: a
    latent's factor against the autoencoder's. ``shrink``: the picture's side over the latent's.
    ``multiple``: what a picture's sides must be divisible by. ``shift``: a flow's.
    """

    name: str
    diffusion_model: nn.Module
    autoencoder: Autoencoder
    text: TextEncoder
    parameterization: str
    alphas_cumprod: Tensor | None
    scale: float
    channels: int
    shrink: int
    multiple: int
    device: torch.device
    shift: float = 1.0

    @property
    def flow(self) -> bool:
        """Whether it is a rectified flow."""
        return self.parameterization == "flow"


def load(path: Path, config: Path | None, device: torch.device) -> Checkpoint:
    """Load the checkpoint ``path`` (.safetensors or .ckpt) in single precision.

    ``config`` is its YAML, by default the one of the same name beside it. Raises
    :class:`Unsupported` that names the file and what is wrong with it.
    """
    config = config or path.with_suffix(".yaml")
    _refuse_absent(path, config)
    model = _Section(config, _read_yaml(config)).section("model", (*MODEL, FLOW))
    if model.target == FLOW:
        return _load_flow(path, config, model, device)
    _refuse_kind(path, weights_file.names_in(path))
    parameterization = model.get("parameterization", "eps")
    if parameterization not in ("eps", "v"):
        raise model.wrong("parameterization", parameterization, "it must be eps or v")
    unet_section = model.section("unet_config", UNET)
    first_stage = model.section("first_stage_config", AUTOENCODER)
    # Two switches of training: neither changes what the model computes here.
    unet = unet_section.build(UNetModel, use_checkpoint=False, use_fp16=False)
    autoencoder = first_stage.build(Autoencoder, ("embed_dim", "ddconfig"))
    if unet.in_channels != 4 or unet.num_classes is not None:
        raise unet_section.wrong("in_channels", unet.in_channels, "only plain text-to-image models can be used")
    text = _text_encoder(model, config)

    weights = weights_file.read(path)
    _refuse_kind(path, weights)
    missing = [
        *_fill(_loader(unet), weights, "model.diffusion_model."),
        *_fill(_loader(autoencoder), weights, "first_stage_model."),
        *_fill(text.load, weights, "cond_stage_model."),
    ]
    _refuse_missing(missing, path, config)
    halvings = len(unet.channel_mult) - 1
    shrink = 2 ** (len(first_stage.get("ddconfig")["ch_mult"]) - 1)
    for part in (unet, autoencoder, text):
        part.requires_grad_(False).eval().to(device)
    return Checkpoint(
        name=path.name,
        diffusion_model=unet,
        autoencoder=autoencoder,
        text=text,
        parameterization=parameterization,
        alphas_cumprod=_alphas_cumprod(model).to(device),
        scale=model.number("scale_factor", 0.18215),
        channels=unet.in_channels,
        shrink=shrink,
        multiple=shrink * 2**halvings,
        device=device,
    )


def files_of(path: Path, config: Path | None) -> list[Path]:
    """The files of which :func:`load` makes the model: the checkpoint, its YAML, and those that it
    shares.

    Raises :class:`Unsupported` as :func:`load` does for a file that is not there.
    """
    config = config or path.with_suffix(".yaml")
    _refuse_absent(path, config)
    content = _read_yaml(config).get("model")
    shares = content.get("params", {}).get("shares") if isinstance(content, Mapping) else None
    return [path, config, *(files_of(path.parent / str(shares), None) if shares else ())]


def _refuse_absent(path: Path, config: Path) -> None:
    if path.is_dir():
        raise Unsupported(f"{path} is a folder: a checkpoint in one file is needed, .safetensors or .ckpt")
    if not path.is_file():
        raise Unsupported(f"there is no checkpoint {path}")
    if not config.is_file():
        _refuse_kind(path, weights_file.names_in(path))
        raise Unsupported(f"there is no configuration {config} of the checkpoint; name its YAML with --config")


def _refuse_kind(path: Path, names: Iterable[str]) -> None:
    """Raise :class:`Unsupported` that says what else than a Stable Diffusion 1 or 2 checkpoint the
    file is, if one can tell."""
    kind = weights_file.other_kind(names)
    if kind is not None:
        raise Unsupported(f"{path} is {kind}; a Stable Diffusion 1 or 2 checkpoint in ldm's format is needed")


def _load_flow(path: Path, config: Path, model: _Section, device: torch.device) -> Checkpoint:
    """A transformer, with autoencoder and text encoder of the checkpoint that its YAML names."""
    section = model.section("transformer_config", TRANSFORMER)
    transformer = section.build(MMDiT)
    missing = _fill(_loader(transformer), weights_file.read(path), "model.diffusion_model.")
    _refuse_missing(missing, path, config)
    others = load(path.parent / str(model.get("shares")), None, device)
    return replace(
        others,
        name=path.name,
        diffusion_model=transformer.requires_grad_(False).eval().to(device),
        parameterization="flow",
        alphas_cumprod=None,
        multiple=others.shrink * transformer.patch_size,
        shift=model.number("shift", 1.0),
    )


def _refuse_missing(missing: list[str], path: Path, config: Path) -> None:
    if missing:
        count = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Unsupported(f"{path} does not hold the weights {missing[0]}{count} that {config} asks for")


class _Section:
    """A part of a YAML, with ``target`` and ``params``. Errors name the file and the place."""

    def __init__(self, file: Path, params: Mapping[str, Any], place: str = ""):
        self._file, self._params, self._place = file, params, place
        self.target = ""

    def section(self, key: str, targets: tuple[str, ...]) -> _Section:
        """The part under ``key``; its ``target`` must be one of ``targets``."""
        value = self._params.get(key)
        if not isinstance(value, Mapping):
            raise self.wrong(key, value, "a part with target and params is needed")
        params = value.get("params", {})
        section = _Section(self._file, params if isinstance(params, Mapping) else {}, f"{self._place}{key}.params.")
        section.target = value.get("target")
        if section.target not in targets:
            raise self.wrong(f"{key}.target", section.target, f"known: {', '.join(targets)}")
        return section

    def get(self, key: str, default: Any = None) -> Any:
        value = self._params.get(key, default)
        if value is None:
            raise Unsupported(f"{self._file}: {self._place}{key} is missing")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise self.wrong(key, value, "a number above 0 is needed")
        return value

    def build(self, kind: type[nn.Module], names: Iterable[str] | None = None, **fixed: Any) -> nn.Module:
        """A ``kind`` on the CPU, made from the named parameters (by default all) and ``fixed``."""
        parameters = {name: self.get(name) for name in names or self._params} | fixed
        try:
            with redirect_stdout(io.StringIO()):  # ldm's parts print their sizes
                return kind(**parameters)
        except Exception as error:  # whatever a constructor of ldm trips over in somebody's YAML
            what = f"{self._place[:-1]} fits no {kind.__name__}"
            raise Unsupported(f"{self._file}: {what}: {in_one_line(error)}") from error

    def wrong(self, key: str, value: Any, wanted: str) -> Unsupported:
        return Unsupported(f"{self._file}: {self._place}{key} is {value!r:.120}; {wanted}")


def _text_encoder(model: _Section, config: Path) -> TextEncoder:
    section = model.section("cond_stage_config", (CLIP, OPEN_CLIP))
    layer = section.get("layer", "last")
    if section.target == CLIP:
        if layer != "last":
            raise section.wrong("layer", layer, "it must be last")
        return Clip(str(section.get("version", "openai/clip-vit-large-patch14")), config.parent)
    if layer not in ("last", "penultimate"):
        raise section.wrong("layer", layer, "it must be last or penultimate")
    return OpenClip(str(section.get("arch", "ViT-H-14")), layer)


def _alphas_cumprod(model: _Section) -> Tensor:
    """ldm's "linear" schedule ``[T]``, in which the square roots of the betas are evenly spaced."""
    if model.get("beta_schedule", "linear") != "linear":
        raise model.wrong("beta_schedule", model.get("beta_schedule"), "it must be linear")
    start, end = model.number("linear_start", 1e-4), model.number("linear_end", 2e-2)
    betas = torch.linspace(start**0.5, end**0.5, int(model.number("timesteps", 1000)), dtype=torch.float64) ** 2
    return (1 - betas).cumprod(dim=0).float()


def _read_yaml(file: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise Unsupported(f"{file} is not a YAML that can be read: {in_one_line(error)}") from error
    if not isinstance(content, Mapping):
        raise Unsupported(f"{file} is not a model's configuration: it holds no part named model")
    return content


def _loader(part: nn.Module) -> Callable[[dict[str, Tensor]], list[str]]:
    return lambda weights: part.load_state_dict(weights, strict=False)[0]


def _fill(load: Callable[[dict[str, Tensor]], list[str]], weights: Mapping[str, Tensor], prefix: str) -> list[str]:
    """Give a part the weights under ``prefix``, and return the full names of the missing ones."""
    try:
        missing = load({name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)})
    except RuntimeError as error:
        text = str(error).splitlines()[-1].strip()
        raise Unsupported(f"the checkpoint's weights {prefix}… do not fit its YAML: {text}") from error
    return [prefix + name for name in missing]
