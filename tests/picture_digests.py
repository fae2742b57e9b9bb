"""MD5 sums of the embedded model's pictures, to show that a change of the code changes no picture
by a bit.

    python tests/picture_digests.py record FILE        # before the change
    python tests/picture_digests.py compare FILE       # after it; exit code 1 if a picture differs

The pictures are every sampler × curve × mask timing, then the other settings and shapes. Sums are
comparable on one machine with one PyTorch and one number of threads. ``--only PART`` takes those
whose name holds ``PART``.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asyndm_lib.clock.curves import CURVES
from asyndm_lib.demo import MODEL
from asyndm_lib.hosts.standalone.embedded import Embedded, Request
from asyndm_lib.hosts.standalone.ldm_checkpoint import load
from asyndm_lib.hosts.standalone.schedules import SCHEDULES
from asyndm_lib.masks.target_masks import TIMINGS
from asyndm_lib.samplers.table import LABELS
from asyndm_lib.settings.settings import Settings

REQUEST = Request(
    prompt="a cat and a basketball",
    negative="a dog",
    seeds=(1,),
    sampler="Euler",
    schedule="automatic",
    steps=6,
    cfg=4.5,
    width=128,
    height=128,
)
ON = Settings(targets="cat, basketball", concavity=0.6)


def cases() -> Iterator[tuple[str, Request, Settings]]:
    """The cases, each with a name of its own."""
    for label, curve, timing in itertools.product(LABELS, CURVES, TIMINGS):
        settings = replace(ON, curve=curve, mask_timing=timing)
        yield f"{label} {curve} {timing}", replace(REQUEST, sampler=label), settings
    for label, (sampler, _) in LABELS.items():
        request = replace(REQUEST, sampler=label)
        yield f"{label} whole picture", request, replace(ON, whole_picture=True)
        yield f"{label} synchronous", request, replace(ON, concavity=0.0)
        yield f"{label} batch", replace(request, seeds=(1, 2), width=192), ON
        yield f"{label} chosen by itself", request, replace(ON, targets="")
        if sampler.levels == "sigmas":
            for schedule in SCHEDULES:
                yield f"{label} {schedule}", replace(request, schedule=schedule), ON
    for curve, k in itertools.product(CURVES, (0.25, 1.0)):
        for label in ("Euler", "DPM++ 2M", "DPM++ 3M SDE", "UniPC", "IPNDM_V", "DEIS", "LMS"):
            settings = replace(ON, curve=curve, concavity=k)
            yield f"{label} {curve} {k}", replace(REQUEST, sampler=label, steps=12), settings
    for name, settings in {
        "own concavities": replace(ON, targets="cat:0.9, basketball:0.2"),
        "one of two": replace(ON, targets="basketball, unicorn"),
        "high threshold": replace(ON, threshold=2.5),
        "zero threshold": replace(ON, threshold=0.0),
        "second cat": replace(ON, targets="cat#2"),
    }.items():
        yield name, REQUEST, settings
    for side in (64, 192, 256):
        yield f"{side}x128", replace(REQUEST, width=side), ON
    yield "ddim eta", replace(REQUEST, sampler="DDIM", eta=1.0), ON


def sums(only: str) -> dict[str, str]:
    """The MD5 of the latents' bytes and of the decoded pixels, by the case's name."""
    host = Embedded(load(MODEL, None, torch.device("cpu")))
    found = {}
    for name, request, settings in cases():
        if only in name:
            latents = host.sample(request, settings)
            pixels = host.decode(latents)
            found[name] = hashlib.md5(latents.numpy().tobytes() + pixels.tobytes()).hexdigest()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", metavar="PART")
    options = parser.parse_args()
    now = sums(options.only)
    if options.what == "record":
        options.file.write_text(json.dumps(now, indent=1) + "\n")
        print(f"{len(now)} pictures")
        return 0
    before = json.loads(options.file.read_text())
    different = [name for name in now if before.get(name) != now[name]]
    print(*(f"differs: {name}" for name in different), sep="\n", end="\n" if different else "")
    print(f"{len(now)} pictures compared, {len(different)} different")
    return 1 if different or not now else 0


if __name__ == "__main__":
    sys.exit(main())
