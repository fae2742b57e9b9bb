"""Forge Neo's transformers."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .quantised import quantised
from .weights import again, random, write

EXTENSION = Path(__file__).parents[1] / "host" / "tiny_configurations" / "scripts" / "tiny_language_models.py"
WIDTH = 64
T5 = {"d_ff": 96, "d_kv": 32, "d_model": WIDTH, "num_heads": 2, "num_layers": 2}
CLIP = {"hidden_size": WIDTH, "intermediate_size": 96, "num_attention_heads": 2, "num_hidden_layers": 2}
CLIP |= {"projection_dim": WIDTH}
FLUX: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "context_in_dim": WIDTH,
    "hidden_size": 256,
    "num_heads": 2,
    "mlp_ratio": 4.0,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "txt_ids_dims": [],
}
PATCHES = {"in_channels": 64, "out_channels": 64, "in_dim": 64, "vec_in_dim": None}
CHROMA = {"hidden_dim": 96, "out_dim": 256, "n_layers": 2}
KLEIN: dict[str, Any] = {
    **FLUX,
    "in_channels": 128,
    "out_channels": 128,
    "vec_in_dim": None,
    "context_in_dim": 3 * WIDTH,
    "hidden_size": WIDTH,
    "mlp_ratio": 3.0,
    "axes_dim": [8, 8, 8, 8],
    "theta": 2000,
    "patch_size": 1,
    "qkv_bias": False,
    "guidance_embed": False,
    "txt_ids_dims": [3],
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
}
NEXT_DIT: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "cap_feat_dim": WIDTH,
    "n_layers": 2,
    "qk_norm": True,
    "axes_dims": [8, 12, 12],
    "axes_lens": [1536, 512, 512],
}
LUMINA = {**NEXT_DIT, "dim": 128, "n_heads": 4, "n_kv_heads": 2, "rope_theta": 10000.0, "ffn_dim_multiplier": 4.0}
Z_IMAGE = {**NEXT_DIT, "dim": 256, "n_heads": 8, "n_kv_heads": 8, "rope_theta": 256.0, "ffn_dim_multiplier": 8 / 3}
Z_IMAGE |= {"z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32}
QWEN = {"attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": WIDTH}
QWEN |= {"axes_dims_rope": [8, 12, 12]}
ANIMA: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 96,
    "concat_padding_mask": True,
    "crossattn_emb_channels": WIDTH,
    "adaln_lora_dim": 16,
    "num_blocks": 2,
    "num_heads": 2,
    "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0,
    "rope_t_extrapolation_ratio": 1.0,
}
WAN = {"dim": 256, "num_heads": 2, "ffn_dim": 256, "num_layers": 2, "text_dim": WIDTH, "in_dim": 16, "out_dim": 16}
ERNIE = {"hidden_size": WIDTH, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 96}
ERNIE |= {"text_in_dim": WIDTH, "rope_axes_dim": [8, 12, 12]}
KREA = {"features": 256, "txtdim": WIDTH, "heads": 2, "kvheads": 1, "layers": 2, "patch": 2, "channels": 16}
KREA_TEXT = {"txtheads": 2, "txtkvheads": 2}

DEV, SCHNELL = "black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell"
FLUX_2, QWEN_IMAGE, WAN_21 = "black-forest-labs/FLUX.2-klein-4B", "Qwen/Qwen-Image", "Wan-AI/Wan2.1-T2V-14B"

Made = tuple[nn.Module, dict[str, Any] | None, dict[str, nn.Module]]
"""The transformer, what the WebUI's detection is to be told, and the other parts by their prefixes.
"""


def make(webui: Path, models: Path) -> None:
    """Write all checkpoints, and the WebUI's configurations of their text encoders and autoencoders
    cut down."""
    sys.argv.append("--cpu")
    os.chdir(webui)
    sys.path[:0] = [str(webui), str(webui / "modules_forge" / "packages")]
    spec = importlib.util.spec_from_file_location(EXTENSION.stem, EXTENSION)
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    folder = models / "huggingface"
    configurations(webui / "backend" / "huggingface", folder)
    for kind, made in KINDS.items():
        transformer, told, parts = made(folder)
        weights = {
            "model.diffusion_model.": random(transformer.state_dict(), SEEDS.get(kind, 1), torch.float32),
            **{prefix: _values(prefix, part, seed) for seed, (prefix, part) in enumerate(parts.items(), start=2)},
        }
        if kind == "chroma":  # known by the published names
            own = weights["model.diffusion_model."]
            weights["model.diffusion_model."] = {_chromas(name): value for name, value in own.items()}
        path = models / "Stable-diffusion" / f"tiny-{kind}.safetensors"
        write(path, weights, told)
        if kind in AGAIN:
            again(path, AGAIN[kind])
        if kind in OTHERWISE_STORED:
            again(path, f"{kind}-offloaded")
            quantised(path, sizes=OTHERWISE_STORED[kind])


def configurations(source: Path, folder: Path) -> None:
    """Cut the configurations of all families but the UNets' in ``folder`` down."""
    tokenizer = Path("tokenizer", "tokenizer.json")
    for path in sorted(source.glob("**/model_index.json")):
        own = folder / path.parent.relative_to(source)
        if "StableDiffusion" in path.read_text():
            continue
        shutil.copytree(path.parent, own, dirs_exist_ok=True)
        if own.name == "Chroma" and not (own / tokenizer).exists():
            shutil.copy(source / DEV / "tokenizer_2" / "tokenizer.json", own / tokenizer)
        for path in own.glob("*/config.json"):
            config = json.loads(path.read_text())
            if "d_model" in config:
                config |= T5
            elif config.get("model_type") == "clip_text_model":
                config |= CLIP
            elif "block_out_channels" in config:
                config |= {"block_out_channels": [32] * 4, "layers_per_block": 1}
            elif "base_dim" in config:
                config |= {"base_dim": 16, "num_res_blocks": 1}
            path.write_text(json.dumps(config))


def _values(prefix: str, part: nn.Module, seed: int) -> dict[str, Tensor]:
    """Random weights of a part. Those of the autoencoders are not rounded."""
    weights = random(part.state_dict(), seed, torch.float32 if prefix == "vae." else torch.bfloat16)
    return {name: value for name, value in weights.items() if not name.endswith("position_ids")}


def _chromas(name: str) -> str:
    return name.replace(".weight", ".scale") if name.startswith("distilled_guidance_layer.norms") else name


def _vae(folder: Path, repository: str) -> nn.Module:
    from backend.nn.vae import AutoencoderKLFlux2, IntegratedAutoencoderKL
    from backend.nn.wan_vae import WanVAE

    own = folder / repository / "vae"
    if repository == QWEN_IMAGE:
        return WanVAE.from_config(json.loads((own / "config.json").read_text()))
    kind = AutoencoderKLFlux2 if repository == FLUX_2 else IntegratedAutoencoderKL
    return kind.from_config(kind.load_config(str(own)))


def _t5(folder: Path, name: str) -> nn.Module:
    from backend.nn.t5 import IntegratedT5

    return IntegratedT5(json.loads((folder / name / "config.json").read_text()))


def _clip(folder: Path, name: str) -> nn.Module:
    from backend.nn.clip import IntegratedCLIP
    from transformers import CLIPTextConfig, CLIPTextModel

    return IntegratedCLIP(CLIPTextModel, CLIPTextConfig.from_pretrained(str(folder / name)), add_text_projection=True)


def _language(name: str) -> nn.Module:
    from backend.nn.llm import llama
    from backend.operations import using_forge_operations

    with using_forge_operations(device=torch.device("cpu"), dtype=torch.float32, manual_cast_enabled=True):
        return getattr(llama, name)({})


def _flux(folder: Path, repository: str, guided: bool) -> Made:
    from backend.nn.flux import IntegratedFluxTransformer2DModel

    text = {
        "text_encoders.clip_l.": _clip(folder, f"{repository}/text_encoder"),
        "text_encoders.t5xxl.": _t5(folder, f"{repository}/text_encoder_2"),
    }
    transformer = IntegratedFluxTransformer2DModel(**FLUX, vec_in_dim=WIDTH, guidance_embed=guided)
    return transformer, None, {"vae.": _vae(folder, DEV), **text}


def _klein(folder: Path) -> Made:
    from backend.nn.flux import IntegratedFluxTransformer2DModel

    parts = {"vae.": _vae(folder, FLUX_2), "text_encoders.qwen3_4b.transformer.": _language("Qwen3_4B")}
    return IntegratedFluxTransformer2DModel(**KLEIN), {"class": "Flux2K4B", "detect": False, "sizes": KLEIN}, parts


def _chroma(folder: Path) -> Made:
    from backend.nn.chroma import IntegratedChromaTransformer2DModel

    parts = {"vae.": _vae(folder, DEV), "text_encoders.t5xxl.": _t5(folder, "Chroma/text_encoder")}
    transformer = IntegratedChromaTransformer2DModel(**{**FLUX, **PATCHES, **CHROMA})
    return transformer, {"class": "Chroma", "detect": True, "sizes": CHROMA}, parts


def _lumina(folder: Path) -> Made:
    from backend.nn.lumina import NextDiT

    parts = {"vae.": _vae(folder, DEV), "text_encoders.gemma2_2b.": _language("Gemma2_2B")}
    return NextDiT(**LUMINA), {"class": "Lumina2", "detect": False, "sizes": LUMINA}, parts


def _z_image(folder: Path) -> Made:
    from backend.nn.lumina import NextDiT

    parts = {"vae.": _vae(folder, DEV), "text_encoders.qwen3_4b.transformer.": _language("Qwen3_4B")}
    return NextDiT(**Z_IMAGE), {"class": "ZImage", "detect": False, "sizes": Z_IMAGE}, parts


def _qwen(folder: Path) -> Made:
    from backend.nn.qwen import QwenImageTransformer2DModel

    parts = {"vae.": _vae(folder, QWEN_IMAGE), "text_encoders.qwen25_7b.": _language("Qwen25_7BVLI")}
    transformer = QwenImageTransformer2DModel(in_channels=64, num_layers=2, **QWEN)
    return transformer, {"class": "QwenImage", "detect": True, "sizes": QWEN}, parts


def _anima(folder: Path) -> Made:
    from backend.nn.anima import Anima

    parts = {"vae.": _vae(folder, QWEN_IMAGE), "text_encoders.qwen3_06b.transformer.": _language("Qwen3_06B")}
    return Anima(**ANIMA), {"class": "Anima", "detect": False, "sizes": ANIMA}, parts


def _wan(folder: Path) -> Made:
    from backend.nn.wan import WanModel

    parts = {"vae.": _vae(folder, QWEN_IMAGE), "text_encoders.umt5xxl.": _t5(folder, f"{WAN_21}/text_encoder")}
    return WanModel(**WAN), {"class": "WAN21_T2V", "detect": True, "sizes": {"text_dim": WIDTH}}, parts


def _ernie(folder: Path) -> Made:
    from backend.nn.ernie import ErnieImageModel

    text = {"text_encoders.ministral3_3b.transformer.": _language("Ministral3_3B")}
    told = {"class": "ErnieImage", "detect": True, "sizes": ERNIE}
    return ErnieImageModel(**ERNIE), told, {"vae.": _vae(folder, FLUX_2), **text}


def _krea(folder: Path) -> Made:
    from backend.nn.krea import SingleStreamDiT

    parts = {"vae.": _vae(folder, QWEN_IMAGE), "text_encoders.qwen3vl_4b.transformer.": _language("Qwen3VL")}
    transformer = SingleStreamDiT(**KREA, txtlayers=3, **KREA_TEXT)
    return transformer, {"class": "Krea2", "detect": True, "sizes": KREA_TEXT}, parts


AGAIN = {"flux-dev": "flux-kontext", "qwen": "qwen-edit"}
"""Second names. By these the WebUI knows what takes its start picture as a reference."""
OTHERWISE_STORED: dict[str, dict[str, Any] | None] = {
    "flux-dev": {"class": "Flux", "detect": False, "sizes": {**FLUX, "vec_in_dim": WIDTH, "guidance_embed": True}},
    "chroma": {"class": "Chroma", "detect": False, "sizes": {**FLUX, **PATCHES, **CHROMA}},
    "z-image": None,
    "qwen": None,
}
"""Those that are there offloaded and with weights in few bits, too, and what has to be told of the
packed ones."""
SEEDS = {"wan-low": 51}
"""Of the transformers that are not to have the usual weights."""
KINDS: dict[str, Callable[[Path], Made]] = {
    "flux-dev": lambda folder: _flux(folder, DEV, True),
    "flux-schnell": lambda folder: _flux(folder, SCHNELL, False),
    "klein": _klein,
    "chroma": _chroma,
    "lumina": _lumina,
    "z-image": _z_image,
    "qwen": _qwen,
    "anima": _anima,
    "wan": _wan,
    "wan-low": _wan,
    "ernie": _ernie,
    "krea": _krea,
}
