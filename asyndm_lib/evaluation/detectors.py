"""Object detectors that the user may have: which things a picture shows, and where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from .weights import absent, package

YOLO = "yolo11x.pt"
OWL = "google/owlvit-large-patch14"

SURE_YOLO, SURE_OWL = 0.4, 0.15
"""The least confidence of a detection. OWL-ViT's is low for whatever it finds."""

OVERLAP = 0.5
"""The share of their union above which the less sure of two boxes of a name is left out."""


class Detection(NamedTuple):
    """One thing: its name, how sure the detector is, and its box (left, top, right, bottom), in
    pixels."""

    name: str
    confidence: float
    box: tuple[float, float, float, float]

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


Detector = Callable[[Image.Image], list[Detection]]


def lacking() -> str | None:
    """The packages or weights that a detector lacks; None if one is here."""
    yolo, owl = package("ultralytics") or _no_yolo(), package("transformers") or absent(OWL)
    return f"{yolo}; or {owl}" if yolo and owl else None


def kind() -> str:
    """The weights of the detector that is here."""
    return OWL if package("ultralytics") or _no_yolo() else YOLO


def load(device: torch.device, names: Sequence[str]) -> Detector:
    """A detector of things with COCO's ``names``: ultralytics' YOLO if it is here, else OWL-ViT
    (Minderer et al. 2022)."""
    return _yolo(device) if kind() == YOLO else _owl(device, names)


def _yolo_file() -> Path | None:
    from ultralytics import settings

    places = [Path(YOLO), Path(settings["weights_dir"]) / YOLO]
    return next((path for path in places if path.is_file()), None)


def _no_yolo() -> str | None:
    return None if _yolo_file() else f"{YOLO} is neither in this folder nor in that of ultralytics' weights"


def _yolo(device: torch.device) -> Detector:
    import ultralytics

    model = ultralytics.YOLO(str(_yolo_file()))

    def detect(picture: Image.Image) -> list[Detection]:
        (found,) = model.predict(picture, conf=SURE_YOLO, iou=OVERLAP, device=str(device), verbose=False)
        boxes = found.boxes
        parts = boxes.cls.tolist(), boxes.conf.tolist(), boxes.xyxy.tolist()
        return [Detection(found.names[int(name)], sure, tuple(box)) for name, sure, box in zip(*parts, strict=True)]

    return detect


def _owl(device: torch.device, names: Sequence[str]) -> Detector:
    from torchvision.ops import batched_nms, box_convert
    from transformers import OwlViTForObjectDetection, OwlViTProcessor

    model = OwlViTForObjectDetection.from_pretrained(OWL, local_files_only=True).eval().to(device)
    processor = OwlViTProcessor.from_pretrained(OWL, local_files_only=True)
    texts = [f"a photo of a {name}" for name in names]

    @torch.no_grad()
    def detect(picture: Image.Image) -> list[Detection]:
        inputs = processor(text=[texts], images=picture, return_tensors="pt").to(device)
        answer = model(**inputs)
        sure, which = answer.logits[0].float().sigmoid().max(dim=-1)
        # The picture is squeezed into a square; the boxes are parts of its sides.
        boxes = box_convert(answer.pred_boxes[0].float(), "cxcywh", "xyxy")
        boxes = boxes * boxes.new_tensor([picture.width, picture.height] * 2)
        kept = (sure > SURE_OWL).nonzero()[:, 0]
        kept = kept[batched_nms(boxes[kept], sure[kept], which[kept], OVERLAP)]
        parts = which[kept].tolist(), sure[kept].tolist(), boxes[kept].tolist()
        return [Detection(names[name], how, tuple(box)) for name, how, box in zip(*parts, strict=True)]

    return detect
