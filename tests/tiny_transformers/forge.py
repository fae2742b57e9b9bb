"""Forge's transformers: Flux.1, Chroma, Stable Diffusion 3 and 3.5."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, zeros

from .quantised import quantised
from .weights import again, random, shapes, write

WIDTH, CLIP_LAYERS, MLP = 64, 3, 2
FLUX: dict[str, Any] = {
    "in_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": WIDTH,
    "hidden_size": WIDTH,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 3,
    "depth_single_blocks": 3,
    "axes_dim": [4, 14, 14],
    "theta": 10000,
    "qkv_bias": True,
}
CHROMA = {"guidance_out_dim": WIDTH, "guidance_hidden_dim": 64, "guidance_n_layers": 2}
T5 = {"num_layers": 2, "d_ff": WIDTH, "d_model": WIDTH, "num_heads": 2}
SD3_T5 = {"num_layers": 0, "d_ff": WIDTH, "d_model": 4096, "num_heads": 64}
"""SD3 pads to 4096 in code: a single layer would have 67 million weights."""
SD3: dict[str, Any] = {
    "in_channels": 16,
    "patch_size": 2,
    "depth": 3,
    "input_size": None,
    "adm_in_channels": 2048,
    "pos_embed_scaling_factor": None,
    "num_patches": 192**2,
    "pos_embed_max_size": 192,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": 4096, "out_features": 3 * WIDTH},
    },
}
KINDS: dict[str, dict[str, Any]] = {
    "flux-dev": {"guidance_embed": True},
    "flux-schnell": {"guidance_embed": False},
    "chroma": {},
    "sd3": {},
    # Forge has a second attention where the largest side is 384.
    "sd35-medium": {"qk_norm": "rms", "num_patches": 384**2, "pos_embed_max_size": 384},
    "sd35-large": {"qk_norm": "rms"},
}
REPOSITORIES = {"flux-dev": "black-forest-labs/FLUX.1-dev", "flux-schnell": "black-forest-labs/FLUX.1-schnell"}
REPOSITORIES |= {"chroma": "Chroma"}
SD3_REPOSITORY = "stabilityai/stable-diffusion-3-medium-diffusers"

OTHERWISE_STORED = {"flux-dev": "text_encoders.clip_l.", "chroma": None}
"""Those that are there offloaded and with weights in few bits, too, and what of them Forge reads
from no GGUF."""
PIECES = 6000
"""How many pieces of its vocabulary SD3's wide T5 keeps."""


def make(webui: Path, models: Path) -> None:
    """Write all checkpoints, and the WebUI's configurations of their text encoders and autoencoders
    cut down."""
    sys.argv.append("--always-cpu")
    sys.path[:0] = [str(webui / name) for name in ("", "packages_3rdparty", "repositories/huggingface_guess")]
    configurations(webui, models / "huggingface")
    for kind in KINDS:
        parts, sizes = _parts(kind, models / "huggingface")
        write(models / "Stable-diffusion" / f"tiny-{kind}.safetensors", parts, sizes)
    checkpoints = models / "Stable-diffusion"
    again(checkpoints / "tiny-sd3.safetensors", "sd3-t5")
    for kind, apart in OTHERWISE_STORED.items():
        again(checkpoints / f"tiny-{kind}.safetensors", f"{kind}-offloaded")
        quantised(checkpoints / f"tiny-{kind}.safetensors", apart)


def configurations(webui: Path, folder: Path) -> None:
    """Cut the configurations of these families in ``folder`` down; those that are not there yet are
    the WebUI's own."""
    source = webui / "backend" / "huggingface"
    for repository in {*REPOSITORIES.values(), SD3_REPOSITORY}:
        shutil.copytree(source / repository, folder / repository, dirs_exist_ok=True)
        sd3 = repository == SD3_REPOSITORY
        for path in (folder / repository).glob("*/config.json"):
            config = json.loads(path.read_text())
            if "d_model" in config:
                config |= SD3_T5 if sd3 else T5
                if sd3:
                    config["vocab_size"] = _cut_tokenizer(folder / repository / "tokenizer_3")
            elif "projection_dim" in config:
                config |= {"num_hidden_layers": CLIP_LAYERS, "intermediate_size": MLP * config["hidden_size"]}
            elif "latent_channels" in config:
                config |= {"block_out_channels": [32] * 4, "layers_per_block": 1}
            path.write_text(json.dumps(config))


def _cut_tokenizer(folder: Path) -> int:
    """Cut T5's tokenizer to its first pieces and all letters, and return how many there are."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    pieces = tokenizer["model"]["vocab"]
    letters = [piece for piece in pieces[PIECES:] if len(piece[0]) == 1 and piece[0].isascii()]
    tokenizer["model"]["vocab"] = pieces[:PIECES] + letters
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < 3]
    path.write_text(json.dumps(tokenizer))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("add_prefix_space", None)  # else transformers builds it anew from spiece.model
    kept = {id: token for id, token in config.get("added_tokens_decoder", {}).items() if int(id) < 3}
    config |= {"extra_ids": 0, "additional_special_tokens": [], "added_tokens_decoder": kept}
    path.write_text(json.dumps(config))
    path = folder / "special_tokens_map.json"
    special = json.loads(path.read_text())
    special.pop("additional_special_tokens", None)
    path.write_text(json.dumps(special))
    (folder / "spiece.model").unlink(missing_ok=True)
    return PIECES + len(letters)


def _parts(kind: str, folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any] | None]:
    """The parts of a checkpoint by their prefixes, and the sizes that Forge has in code."""
    from backend.nn.chroma import IntegratedChromaTransformer2DModel
    from backend.nn.flux import IntegratedFluxTransformer2DModel
    from backend.nn.mmditx import MMDiTX

    own = folder / REPOSITORIES.get(kind, SD3_REPOSITORY)
    transformer, text = "model.diffusion_model.", "text_encoders."
    if kind.startswith("sd3"):
        made = shapes(partial(MMDiTX, **{**SD3, **KINDS[kind]}))
        parts = {
            transformer: random(made, 1),
            f"{text}clip_l.": _clip(own / "text_encoder", 2),
            f"{text}clip_g.": _clip(own / "text_encoder_2", 5),
            f"{text}t5xxl.": _t5(own / "text_encoder_3", 3),
            "first_stage_model.": _vae(own / "vae", 4),
        }
        return parts, None
    if kind == "chroma":
        made = shapes(partial(IntegratedChromaTransformer2DModel, **FLUX, **CHROMA))
        parts = {f"{text}t5xxl.": _t5(own / "text_encoder", 3)}
    else:
        made = shapes(partial(IntegratedFluxTransformer2DModel, **FLUX, **KINDS[kind]))
        parts = {f"{text}clip_l.": _clip(own / "text_encoder", 2), f"{text}t5xxl.": _t5(own / "text_encoder_2", 3)}
    parts |= {transformer: random(made, 1), "vae.": _vae(own / "vae", 4)}
    return parts, {"sizes": {**FLUX, **(CHROMA if kind == "chroma" else {})}}


def _clip(folder: Path, seed: int) -> dict[str, Tensor]:
    from backend.nn.clip import IntegratedCLIP
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig.from_pretrained(folder)
    made = shapes(lambda: IntegratedCLIP(CLIPTextModel, config, add_text_projection=True))
    return {name: value for name, value in random(made, seed).items() if not name.endswith("position_ids")}


def _t5(folder: Path, seed: int) -> dict[str, Tensor]:
    from backend.nn.t5 import IntegratedT5

    config = json.loads((folder / "config.json").read_text())
    weights = random(shapes(lambda: IntegratedT5(config)), seed)
    if not config["num_layers"]:
        # Forge wants more than 16 tensors of a T5; it passes over those that it does not know.
        weights |= {f"transformer.encoder.padding.{number}": zeros(1) for number in range(17)}
    return weights


def _vae(folder: Path, seed: int) -> dict[str, Tensor]:
    from backend.nn.vae import IntegratedAutoencoderKL

    config = json.loads((folder / "config.json").read_text())
    return random(shapes(lambda: IntegratedAutoencoderKL.from_config(config)), seed)
