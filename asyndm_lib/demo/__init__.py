"""The embedded models, and the ``generate`` command that draws with it."""

from pathlib import Path

MODEL = Path(__file__).parent / "model" / "emoji.safetensors"
"""The embedded model. The command line's default size and CFG scale are those it was trained
for."""

TRANSFORMER = MODEL.with_name("transformer.safetensors")
"""The embedded transformer, which shares autoencoder and text encoder with :data:`MODEL`."""

EMBEDDED = {"unet": MODEL, "transformer": TRANSFORMER}
