"""The tiny random models that the WebUIs under test share."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

from family import HOST, NEO
from tiny_checkpoints.kinds import WIDTHS
from webui import REPOSITORY, python_of

INVERSION, INVERSION_VECTORS = "asyndmtoken", 3
_FORGES = {"sd1": {"emb_params": 768}, "sdxl": {"clip_g": 1280, "clip_l": 768}}
INVERSIONS = (
    _FORGES
    if HOST.forge
    else {
        "sd1": {"emb_params": WIDTHS["demo"]},
        "sdxl": {"clip_g": WIDTHS["open_clip"], "clip_l": WIDTHS["clip"]},
    }
)
"""The same word for each family: its tensors and their widths. The WebUI takes the one that fits
the model."""
FLOW = "sdxl-rectified"
"""A checkpoint that Forge Neo takes for a flow model, by its name."""
LORA, HYPERNETWORK, CONTROL = "asyndmlora", "asyndmhyper", "tiny-control"


def make(webui: Path, folder: Path) -> None:
    """Fill ``folder`` with ``models`` and ``embeddings``."""
    checkpoints = folder / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if HOST.forge:
        # It has no ldm, of which the tests' own Python has what is needed.
        command = [sys.executable, "-m", "tiny_checkpoints", checkpoints, webui.resolve()]
    else:
        environment["PYTHONPATH"] = str(webui / "repositories" / "stable-diffusion-stability-ai")
        command = [python_of(webui), "-m", "tiny_checkpoints", checkpoints]
    subprocess.run(
        command,
        cwd=REPOSITORY / "tests",
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    _networks(webui, folder / "models")
    if HOST.forge:
        _control_model(folder / "models")
        # It looks for text encoders when it starts; test_host_transformers.py has this one written.
        apart = folder / "models" / "text_encoder" / "tiny-apart.safetensors"
        apart.parent.mkdir()
        apart.touch()
    if HOST is NEO:
        for path in checkpoints.glob("tiny-sdxl.*"):
            path.with_stem(f"tiny-{FLOW}").hardlink_to(path)
    for name, tensors in INVERSIONS.items():
        (folder / "embeddings" / name).mkdir(parents=True)
        _inversion(folder / "embeddings" / name / f"{INVERSION}.safetensors", tensors)


def _networks(webui: Path, models: Path) -> None:
    """Write a LoRA, a hypernetwork and a TAESD; see :mod:`tiny_networks`."""
    maker = Path(__file__).with_name("tiny_networks.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([python_of(webui), maker, models, LORA, HYPERNETWORK], env=environment, check=True)


def _control_model(models: Path) -> None:
    """Write a control model for tiny-sd1 where a ControlNet is built in; see
    :mod:`neighbour_models`."""
    from neighbour_models import control_model
    from safetensors.torch import load_file, save_file

    weights = control_model(load_file(models / "Stable-diffusion" / "tiny-sd1.safetensors"))
    (models / "ControlNet").mkdir()
    path = models / "ControlNet" / f"{CONTROL}.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, path)


def _inversion(path: Path, widths: dict[str, int]) -> None:
    """A textual inversion of random vectors, as a safetensors file."""
    draw = random.Random(1)
    header, data = {}, b""
    for name, width in widths.items():
        count = INVERSION_VECTORS * width
        start, data = len(data), data + struct.pack(f"<{count}f", *(draw.gauss(0, 0.5) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": [INVERSION_VECTORS, width], "data_offsets": [start, len(data)]}
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
