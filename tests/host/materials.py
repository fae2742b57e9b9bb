"""The tiny random models that the WebUIs under test share."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
from pathlib import Path

from webui import REPOSITORY, python_of

TEXT_WIDTH = 64
"""Of the tiny checkpoints' text encoder."""

INVERSION, INVERSION_VECTORS = "asyndmtoken", 3
MAKER = REPOSITORY / "tests" / "tiny_checkpoints.py"


def make(webui: Path, folder: Path) -> None:
    """Fill ``folder`` with ``models`` and ``embeddings``, by the WebUI's own Python."""
    checkpoints = folder / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    ldm = webui / "repositories" / "stable-diffusion-stability-ai"
    environment = {**os.environ, "PYTHONPATH": str(ldm), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [python_of(webui), str(MAKER), str(checkpoints)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    (folder / "embeddings").mkdir()
    _inversion(folder / "embeddings" / f"{INVERSION}.safetensors")


def _inversion(path: Path) -> None:
    """A textual inversion of random vectors, as a safetensors file."""
    draw = random.Random(1)
    count = INVERSION_VECTORS * TEXT_WIDTH
    data = struct.pack(f"<{count}f", *(draw.gauss(0, 0.5) for _ in range(count)))
    tensor = {"dtype": "F32", "shape": [INVERSION_VECTORS, TEXT_WIDTH], "data_offsets": [0, len(data)]}
    header = json.dumps({"emb_params": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
