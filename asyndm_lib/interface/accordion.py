"""The accordion in txt2img and img2img, built from the settings model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import gradio as gr
from modules.ui_components import InputAccordion

from ..settings.presets import HELP, PRESETS, label
from ..settings.settings import Settings
from . import canvas, marking, options
from .infotext import READERS, lost, was_on

BY_HAND = ("region", "with_words", "mask")
"""The settings of a mask by hand, whose controls stand together."""

AT_ONCE = ("targets", "concavity")
"""The settings that stand in the open accordion; the others are under "Advanced"."""


def build(elem_id: Callable[[str], str]) -> tuple[list[Any], list[tuple[Any, Callable]]]:
    """The script's controls in the order of its arguments, and its infotext fields."""
    with InputAccordion(False, label="AsynDM", elem_id=elem_id("enabled")) as enabled:
        controls = dict.fromkeys(f.name for f in fields(Settings))  # in the order of the arguments
        buttons = _preset_buttons(elem_id)
        for f in fields(Settings):
            if f.name in AT_ONCE:
                controls[f.name] = _control(f, elem_id(f.name))
            if f.name == "targets":
                marking.panel(elem_id("words"))
        lost_mask = gr.HTML("", elem_classes=["asyndm-lost"])  # seen also while the rest is closed
        with gr.Accordion("Advanced", open=False, elem_id=elem_id("advanced")):
            for f in fields(Settings):
                if f.name not in (*AT_ONCE, *BY_HAND):
                    controls[f.name] = _control(f, elem_id(f.name))
            _by_hand(controls, elem_id)
        _connect(buttons, controls)
    readers = {name: read for name, read in READERS.items() if name != "mask"}
    restored = [(enabled, was_on), *((controls[name], read) for name, read in readers.items()), (lost_mask, lost)]
    # The host's Settings → Defaults keeps whether it is on. It would also keep for good what the
    # other controls began with at the first start, and so what Settings → AsynDM says would not
    # count.
    for control in controls.values():
        control.do_not_save_to_config = True
    return [enabled, *controls.values()], restored


def _by_hand(controls: dict[str, Any], elem_id: Callable[[str], str]) -> None:
    """The controls of a mask by hand, added to ``controls``."""
    by_name = {f.name: f for f in fields(Settings)}
    for name in ("region", "with_words"):
        controls[name] = _control(by_name[name], elem_id(name))
    controls["mask"] = canvas.build(elem_id("mask"), by_name["mask"].metadata["label"])


def _preset_buttons(elem_id: Callable[[str], str]) -> dict[str, Any]:
    """A row of buttons, by the presets' names."""
    with gr.Row(elem_classes="asyndm-presets"):
        return {
            name: gr.Button(label(name), size="sm", elem_id=elem_id(f"preset_{name}"), tooltip=HELP[name])
            for name in PRESETS
        }


def _connect(buttons: dict[str, Any], controls: dict[str, Any]) -> None:
    """Have each preset's button set some of the controls."""
    for name, preset in PRESETS.items():
        outputs = [controls[setting] for setting in preset]
        buttons[name].click(_setting(preset), None, outputs, show_progress=False, queue=False)


def _setting(preset: dict[str, Any]) -> Callable[[], list[Any]]:
    return lambda: [*preset.values()]


def _control(field: Any, elem_id: str) -> Any:
    meta = field.metadata
    common = {"value": options.default(field), "label": meta["label"], "info": meta["help"], "elem_id": elem_id}
    if isinstance(field.default, bool):
        return gr.Checkbox(**common)
    if isinstance(field.default, float):
        return gr.Slider(minimum=meta["minimum"], maximum=meta["maximum"], step=meta["step"], **common)
    if "choices" in meta:
        return gr.Radio(choices=list(meta["choices"]), **common)
    return gr.Textbox(placeholder="cat, red heart:0.5, dog#2", lines=1, **common)
