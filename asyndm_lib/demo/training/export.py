"""Stage 5: put the trained parts together as one Stable Diffusion 1 checkpoint, or take such a
checkpoint apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ...errors import AsynDMError
from .concepts import CONCEPTS
from .denoiser import read_text_config
from .networks import Autoencoder, TextEncoder, build_unet, read_config
from .sampling import Model
from .training import encoder_digest, fill, read_weights
from .vocabulary import WordEncoder

PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model.",
            "text": "cond_stage_model.transformer.text_model."}


@dataclass
class Settings:
    """Where the parts are and where the checkpoint goes."""

    autoencoder: Path
    denoiser: Path
    model: Path


def run(settings: Settings) -> None:
    """Write ``emoji.safetensors`` (half precision), the scale factor in ``emoji.yaml``, and
    ``names.txt``."""
    from safetensors.torch import save_file

    autoencoder, denoiser = read_weights(settings.autoencoder), read_weights(settings.denoiser)
    made_of = denoiser.pop("encoder", None)
    if made_of is not None and not torch.equal(made_of, encoder_digest(autoencoder)):
        raise AsynDMError(
            f"{settings.denoiser} was trained on latents of another encoder than that of {settings.autoencoder}"
        )
    parts = {**autoencoder, **denoiser}
    for path, own in ((settings.autoencoder, ("scale_factor", "vae.")), (settings.denoiser, ("unet.", "text."))):
        for prefix in own:
            if not any(key.startswith(prefix) for key in parts):
                raise AsynDMError(f"{path} holds no {prefix}: it is of another stage")
    scale = float(parts.pop("scale_factor"))
    tensors = {}
    for key, value in parts.items():
        part, name = key.split(".", 1)
        if f"{part}." not in ("vae.", "unet.", "text."):
            raise AsynDMError(f"{key} is of no stage: {settings.autoencoder} or {settings.denoiser} is another file")
        if not torch.isfinite(value).all():
            raise AsynDMError(f"{key} is not finite: train that part again, at a lower --rate")
        tensors[PREFIXES[part] + name] = value.half().contiguous()
    save_file(tensors, settings.model / "emoji.safetensors", metadata={"format": "pt"})
    yaml_file = settings.model / "emoji.yaml"
    text = re.sub(r"scale_factor: .*", f"scale_factor: {scale:.8g}", yaml_file.read_text(encoding="utf-8"))
    yaml_file.write_text(text, encoding="utf-8")
    (settings.model / "names.txt").write_text("\n".join(concept.name for concept in CONCEPTS) + "\n", encoding="utf-8")
    count = sum(value.numel() for value in tensors.values())
    print(f"{count / 1e6:.2f} M parameters, {(settings.model / 'emoji.safetensors').stat().st_size / 1e6:.1f} MB")


@dataclass
class SplitSettings:
    """Where the checkpoint is and where its parts go."""

    autoencoder: Path
    denoiser: Path
    model: Path


def split(settings: SplitSettings) -> None:
    """Write the checkpoint's parts as the training stages take them with ``--resume``."""
    from safetensors.torch import save_file

    tensors = read_weights(settings.model / "emoji.safetensors")
    parts = {f"{part}.{key[len(prefix):]}": value for part, prefix in PREFIXES.items()
             for key, value in tensors.items() if key.startswith(prefix)}
    scale = torch.tensor(read_config(settings.model / "emoji.yaml")["scale_factor"])
    save_file({"scale_factor": scale, **{key: value for key, value in parts.items() if key.startswith("vae.")}},
              settings.autoencoder)
    save_file({key: value for key, value in parts.items() if not key.startswith("vae.")}, settings.denoiser)


def load_model(folder: Path, device: torch.device | str) -> Model:
    """The exported checkpoint, in single precision, for sampling."""
    folder = Path(folder)
    config = read_config(folder / "emoji.yaml")
    tensors = read_weights(folder / "emoji.safetensors")
    parts = {"unet": build_unet(config["unet_config"]["params"]),
             "vae": Autoencoder(config["first_stage_config"]["params"]),
             "text": TextEncoder(read_text_config(folder / "tokenizer"))}
    for name, module in parts.items():
        fill(module, tensors, PREFIXES[name], folder / "emoji.safetensors")
        module.to(device).eval().requires_grad_(False)
    return Model(parts["unet"], parts["text"], parts["vae"], config["scale_factor"], WordEncoder(folder / "tokenizer"))
