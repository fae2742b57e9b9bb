"""Test-only extension: Forge takes its configurations from beside the models, cut down to the tiny
models' size.

What Forge has in code of its transformers comes with the checkpoint (tests/tiny_transformers).
reForge has its own in code; there the sizes are given to what it builds of them.
"""

import functools
import json
from importlib.util import find_spec

from modules.paths import models_path


def forge():
    import backend.loader

    if hasattr(backend.loader, "HF"):
        backend.loader.HF = f"{models_path}/huggingface"
    else:
        backend.loader.dir_path = models_path
    import huggingface_guess

    huggingface_guess.guess = guess(huggingface_guess.guess, getattr(backend.loader, "GuessChroma", None))


def guess(usual, chroma):
    """The WebUI's detection, which takes the sizes of a transformer that has any with it."""

    @functools.wraps(usual)
    def guess(weights):
        told = next((weights.pop(name) for name in NAMES if name in weights), None)
        if told is None:
            return usual(weights)
        wanted = json.loads(bytes(told.tolist()))
        sizes = wanted["sizes"]
        if "class" in wanted:
            found = of_class(weights, wanted["class"], wanted["detect"], sizes)
        else:
            found = usual(weights)
            if chroma is not None:  # which is told apart from Flux only afterwards
                for name in chroma.unet_extra_config.keys() & sizes:
                    chroma.unet_extra_config[name] = sizes.pop(name)
            found.unet_config.update(sizes)
        return found

    return guess


NAMES = ("tiny_sizes", "model.diffusion_model.tiny_sizes")
"""A WebUI may have given every tensor the prefix."""


def of_class(weights, name, detect, sizes):
    """What Forge Neo's detection says of a transformer that it knows by its true width.

    ``detect``: whether it can tell the other sizes.
    """
    from huggingface_guess import detection, model_list

    prefix = detection.unet_prefix_from_state_dict(weights)
    found = detection.detect_unet_config(weights, prefix) if detect else {}
    guessed = getattr(model_list, name)({**found, **sizes})
    guessed.unet_key_prefix = [prefix]
    for kind in ("image_model", "audio_model"):
        guessed.unet_config.pop(kind, None)
    return guessed


def reforge():
    from pathlib import Path

    from ldm_patched.modules import sd, sd1_clip

    sizes = json.loads((Path(models_path) / "sizes.json").read_text())
    read, build = sd1_clip.CLIPTextConfig.from_json_file, sd.AutoencoderKL

    class TextConfig(sd1_clip.CLIPTextConfig):
        @classmethod
        def from_json_file(cls, path):
            config = read(path)
            config.num_hidden_layers = sizes["layers"]
            config.intermediate_size = sizes["factor"] * config.hidden_size
            return config

    sd1_clip.CLIPTextConfig = TextConfig
    sd.AutoencoderKL = lambda ddconfig, **rest: build(ddconfig={**ddconfig, **sizes["autoencoder"]}, **rest)


if find_spec("backend") is None:
    reforge()
else:
    forge()
