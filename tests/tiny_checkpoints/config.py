"""The YAML beside a checkpoint, with the classes that the WebUIs' own YAML of its family names."""

from __future__ import annotations

from typing import Any

from .kinds import AUTOENCODER, OPEN_CLIP, SIZE_EMBEDDING, Kind
from .text import Encoder


def write(kind: Kind, encoders: list[Encoder]) -> dict[str, Any]:
    """The configuration of a checkpoint of ``kind`` whose text encoders are ``encoders``."""
    return {"model": _sgm(kind, encoders) if kind.sgm else _ldm(kind, *encoders)}


def _part(target: str, **params: Any) -> dict[str, Any]:
    return {"target": target, "params": params}


def _first_stage(target: str) -> dict[str, Any]:
    loss = {"target": "torch.nn.Identity"}
    return _part(target, embed_dim=4, monitor="val/rec_loss", ddconfig=AUTOENCODER, lossconfig=loss)


def _ldm(kind: Kind, encoder: Encoder) -> dict[str, Any]:
    modules = "ldm.modules.encoders.modules."
    if encoder.name == "open_clip":
        text = _part(modules + "FrozenOpenCLIPEmbedder", arch=OPEN_CLIP["arch"], version=None, layer="penultimate")
    else:
        text = _part(modules + "FrozenCLIPEmbedder", version=encoder.folder)
    target = "ldm.models.diffusion.ddpm.LatentDiffusion"
    params = {
        "parameterization": kind.prediction,
        "linear_start": 0.00085,
        "linear_end": 0.0120,
        "num_timesteps_cond": 1,
        "log_every_t": 200,
        "timesteps": 1000,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": 64,
        "channels": 4,
        "cond_stage_trainable": False,
        "conditioning_key": "hybrid" if kind.extra_channels else "crossattn",
        "monitor": "val/loss_simple_ema",
        "scale_factor": 0.18215,
        "use_ema": False,
        "unet_config": _part("ldm.modules.diffusionmodules.openaimodel.UNetModel", **kind.unet),
        "first_stage_config": _first_stage("ldm.models.autoencoder.AutoencoderKL"),
        "cond_stage_config": text,
    }
    if kind.edit:
        target = "modules.models.diffusion.ddpm_edit.LatentDiffusion"  # the WebUI's own
        params |= {"first_stage_key": "edited", "cond_stage_key": "edit"}
    elif kind.extra_channels:
        target = "ldm.models.diffusion.ddpm.LatentInpaintDiffusion"
        params["finetune_keys"] = None
    return _part(target, **params)


def _sgm(kind: Kind, encoders: list[Encoder]) -> dict[str, Any]:
    diffusion = "sgm.modules.diffusionmodules."
    prediction = {"eps": "Eps", "v": "V"}[kind.prediction]
    denoiser = _part(
        diffusion + "denoiser.DiscreteDenoiser",
        num_idx=1000,
        weighting_config={"target": f"{diffusion}denoiser_weighting.{prediction}Weighting"},
        scaling_config={"target": f"{diffusion}denoiser_scaling.{prediction}Scaling"},
        discretization_config={"target": diffusion + "discretizer.LegacyDDPMDiscretization"},
    )
    unet = _part(diffusion + "openaimodel.UNetModel", **kind.unet, spatial_transformer_attn_type="softmax-xformers")
    embedders = [_sgm_text(encoder) | {"input_key": "txt"} for encoder in encoders]
    for key, _ in kind.sizes:
        size = _part("sgm.modules.encoders.modules.ConcatTimestepEmbedderND", outdim=SIZE_EMBEDDING)
        embedders.append(size | {"input_key": key})
    return _part(
        "sgm.models.diffusion.DiffusionEngine",
        scale_factor=0.13025,
        disable_first_stage_autocast=True,
        denoiser_config=denoiser,
        network_config=unet,
        conditioner_config=_part("sgm.modules.GeneralConditioner", emb_models=embedders),
        first_stage_config=_first_stage("sgm.models.autoencoder.AutoencoderKLInferenceWrapper"),
    )


def _sgm_text(encoder: Encoder) -> dict[str, Any]:
    modules = "sgm.modules.encoders.modules."
    if encoder.name == "clip":
        return _part(modules + "FrozenCLIPEmbedder", version=encoder.folder, layer="hidden", layer_idx=1)
    return _part(
        modules + "FrozenOpenCLIPEmbedder2",
        arch=OPEN_CLIP["arch"],
        version=None,
        layer="penultimate",
        always_return_pooled=True,
        legacy=False,
    )
