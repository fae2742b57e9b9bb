"""The command line, and the embedded model that it draws with."""

from pathlib import Path

MODEL = Path(__file__).parent / "model" / "emoji.safetensors"
"""The embedded model; the command line's defaults of the size and the CFG scale are those it was trained for."""
