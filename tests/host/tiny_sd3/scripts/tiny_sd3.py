"""Test-only extension: AUTOMATIC1111's Stable Diffusion 3 with text encoders and an autoencoder of
the size that tests/tiny_transformers writes beside the models, and tokenizers that are there.
"""

import json
from pathlib import Path

from modules.models.sd3 import other_impls, sd3_cond, sd3_impls
from modules.paths import models_path

MODELS = Path(models_path)
TOKENIZERS = {
    "openai/clip-vit-large-patch14": MODELS / "Stable-diffusion" / "tiny-text-clip",
    "google/t5-v1_1-xxl": MODELS / "tiny-t5",
}


def cut(build):
    """``build`` of Stable Diffusion 3 with the small sizes, which are there by then."""

    def built(*args, **kwargs):
        sizes = json.loads((MODELS / "tiny-sd3.json").read_text())
        clip, t5 = sizes["clip"], sizes["t5"]
        for config in (sd3_cond.CLIPL_CONFIG, sd3_cond.CLIPG_CONFIG):
            config["num_hidden_layers"] = clip["num_hidden_layers"]
            config["intermediate_size"] = clip["factor"] * config["hidden_size"]
        sd3_cond.T5_CONFIG.update(t5)
        return build(*args, **kwargs)

    return built


def small(build):
    def built(*args, **kwargs):
        return build(*args, **json.loads((MODELS / "tiny-sd3.json").read_text())["autoencoder"], **kwargs)

    return built


def local(tokenizer):
    """``tokenizer``, which is found beside the models."""

    class Local(tokenizer):
        @classmethod
        def from_pretrained(cls, name, *args, **kwargs):
            return tokenizer.from_pretrained(str(TOKENIZERS.get(name, name)), *args, **kwargs)

    return Local


sd3_cond.SD3Cond.__init__ = cut(sd3_cond.SD3Cond.__init__)
sd3_impls.VAEEncoder = small(sd3_impls.VAEEncoder)
sd3_impls.VAEDecoder = small(sd3_impls.VAEDecoder)
for module in (other_impls, sd3_cond):
    for name in ("CLIPTokenizer", "T5TokenizerFast"):
        setattr(module, name, local(getattr(module, name)))
