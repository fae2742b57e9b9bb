"""Test-only extension: Forge takes its configurations from beside the models, cut down to the tiny
models' size.

reForge has its own in code; there the sizes are given to what it builds of them.
"""

from importlib.util import find_spec

from modules.paths import models_path


def forge():
    import backend.loader

    if hasattr(backend.loader, "HF"):
        backend.loader.HF = f"{models_path}/huggingface"
    else:
        backend.loader.dir_path = models_path


def reforge():
    import json
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
