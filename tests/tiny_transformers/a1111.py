"""AUTOMATIC1111's Stable Diffusion 3, whose text encoders and autoencoder have their sizes in code:
the test-only extension ``tiny_sd3`` gives them those of :data:`TEXT` and :data:`AUTOENCODER`.

Its tokenizers are CLIP's own, which other tiny checkpoints bring, and a small one for T5.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .weights import again, random, shapes, write

CLIP_LAYERS, MLP = 3, 2
"""It takes the last layer but one only where another comes before it."""
T5 = {"num_layers": 0, "d_ff": 64}
AUTOENCODER = {"ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1}
DEPTH, WIDTH = 3, 64
LETTERS = "abcdefghijklmnopqrstuvwxyz,.:()1234567890"
WORDS = ("a", "and", "red", "cat", "dog", "basket", "in", "the")
PIECES = ["<pad>", "</s>", "<unk>", "▁", *LETTERS, *(f"▁{word}" for word in WORDS), "ball"]
"""What T5's small tokenizer knows."""


def make(webui: Path, models: Path) -> None:
    """Write the checkpoint, by a second name for T5 too: that is made only where it is wanted when
    a model is loaded."""
    sys.path.insert(0, str(webui))
    tokenizer(models / "tiny-t5")
    sizes = {"clip": {"num_hidden_layers": CLIP_LAYERS, "factor": MLP}, "t5": {**T5, "vocab_size": len(PIECES)}}
    (models / "tiny-sd3.json").write_text(json.dumps({**sizes, "autoencoder": AUTOENCODER}))
    path = models / "Stable-diffusion" / "tiny-sd3.safetensors"
    write(path, _parts())
    again(path, "sd3-t5")


def tokenizer(folder: Path) -> None:
    """Write T5's tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    made = Tokenizer(models.Unigram([(piece, -1.0 / len(piece)) for piece in PIECES], unk_id=2))
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": [], **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _parts() -> dict[str, dict[str, Tensor]]:
    """The parts of the checkpoint by their prefixes."""
    import types

    # Its modules of Stable Diffusion 3 need no more of the WebUI's than this one's classes.
    hijack: Any = types.ModuleType("modules.sd_hijack")
    hijack.TextualInversionEmbeddings = lambda *size, textual_inversion_key, **kind: nn.Embedding(*size, **kind)
    sys.modules["modules.sd_hijack"] = hijack
    from modules.models.sd3 import mmdit, other_impls, sd3_impls

    context = {"in_features": 4096, "out_features": DEPTH * WIDTH}
    transformer = partial(
        mmdit.MMDiT,
        input_size=None,
        in_channels=16,
        depth=DEPTH,
        num_patches=192**2,
        pos_embed_max_size=192,
        adm_in_channels=2048,
        context_embedder_config={"target": "torch.nn.Linear", "params": context},
    )
    clip = [
        {
            "hidden_act": act,
            "hidden_size": width,
            "num_attention_heads": width // 64,
            "num_hidden_layers": CLIP_LAYERS,
            "intermediate_size": MLP * width,
        }
        for act, width in (("quick_gelu", 768), ("gelu", 1280))
    ]
    t5 = {"d_model": 4096, "num_heads": 64, "vocab_size": len(PIECES), **T5}
    autoencoder = {name: tuple(value) if isinstance(value, list) else value for name, value in AUTOENCODER.items()}
    text, kind = "text_encoders.", {"dtype": None, "device": None}
    parts = {
        "model.diffusion_model.": transformer,
        f"{text}clip_l.transformer.": partial(other_impls.CLIPTextModel, clip[0], **kind),
        f"{text}clip_g.transformer.": partial(other_impls.CLIPTextModel, clip[1], **kind),
        f"{text}t5xxl.transformer.": partial(other_impls.T5, t5, **kind),
        "first_stage_model.encoder.": partial(sd3_impls.VAEEncoder, **autoencoder),
        "first_stage_model.decoder.": partial(sd3_impls.VAEDecoder, **autoencoder),
    }
    return {prefix: random(shapes(part), seed) for seed, (prefix, part) in enumerate(parts.items())}
