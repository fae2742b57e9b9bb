"""The embedded model, and the ``generate`` command that draws with it."""

from pathlib import Path

MODEL = Path(__file__).parent / "model" / "emoji.safetensors"
"""The embedded model. The command line's default size and CFG scale are those it was trained
for."""
