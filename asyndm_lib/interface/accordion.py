"""The accordion in txt2img and img2img, built from the settings model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import gradio as gr
from modules.ui_components import InputAccordion

from ..settings import Settings
from .infotext import READERS, was_on


def build(elem_id: Callable[[str], str]) -> tuple[list[Any], list[tuple[Any, Callable]]]:
    """The script's controls in the order of its arguments, and its infotext fields."""
    with InputAccordion(False, label="AsynDM", elem_id=elem_id("enabled")) as enabled:
        controls = {f.name: _control(f, elem_id(f.name)) for f in fields(Settings)}
    restored = [(enabled, was_on), *((control, READERS[name]) for name, control in controls.items())]
    for control, _ in restored:
        control.do_not_save_to_config = True
    return [enabled, *controls.values()], restored


def _control(field: Any, elem_id: str) -> Any:
    meta = field.metadata
    common = {"value": field.default, "label": meta["label"], "info": meta["help"], "elem_id": elem_id}
    if isinstance(field.default, bool):
        return gr.Checkbox(**common)
    if isinstance(field.default, float):
        return gr.Slider(minimum=meta["minimum"], maximum=meta["maximum"], step=meta["step"], **common)
    if "choices" in meta:
        return gr.Radio(choices=list(meta["choices"]), **common)
    return gr.Textbox(placeholder="cat, red heart:0.5, dog#2", lines=1, **common)
