"""The canvas on which a person paints a mask: the host's own."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gradio as gr
from modules import shared

_BLANK = "Paint on a blank in the form of the picture"
_OPACITY = 75
"""Per cent: the picture is seen through the strokes, which count as painted above a half."""
_LAST = "Paint on the picture that is selected in the results"


def build(elem_id: str, label: str) -> Any:
    """A canvas, with two buttons that give it something to paint on; returns the control that holds
    the strokes.

    ``elem_id``: that of the setting. The buttons' pictures are made by the page's JavaScript.
    """
    with gr.Accordion("Paint the mask", open=False, elem_id=f"{elem_id}_canvas"):
        with gr.Row():
            blank = gr.Button("Blank", size="sm", elem_id=f"{elem_id}_blank", tooltip=_BLANK)
            last = gr.Button("Last picture", size="sm", elem_id=f"{elem_id}_last", tooltip=_LAST)
        background, strokes = _forge(elem_id) if _has_forge_canvas() else _gradio(elem_id, label)
    tab = "img2img" if "_img2img_" in elem_id else "txt2img"
    for button, picture in ((blank, "Blank"), (last, "Last")):
        button.click(None, None, [background], _js=f"() => asyndm.canvas{picture}('{tab}')", show_progress=False)
    return strokes


def _has_forge_canvas() -> bool:
    return find_spec("modules_forge") is not None and find_spec("modules_forge.forge_canvas") is not None


def _forge(elem_id: str) -> tuple[Any, Any]:
    """Forge's canvas: the control of its background, and that of its strokes."""
    from modules_forge.forge_canvas.canvas import ForgeCanvas

    fixed = {"scribble_color_fixed": True, "scribble_alpha_fixed": True, "scribble_softness_fixed": True}
    brush = {"scribble_color": _colour(), "scribble_alpha": _OPACITY, "scribble_width": 4}
    contrast = getattr(shared.opts, "img2img_inpaint_mask_high_contrast", False)
    canvas = ForgeCanvas(elem_id=elem_id, height=384, contrast_scribbles=contrast, **brush, **fixed)
    return canvas.background, canvas.foreground


def _gradio(elem_id: str, label: str) -> tuple[Any, Any]:
    """Gradio's own canvas, which is one control."""
    brush = {"tool": "sketch", "brush_color": _colour(), "height": 384}
    image = gr.Image(label=label, source="upload", interactive=True, type="pil", elem_id=elem_id, **brush)
    return image, image


def _colour() -> str:
    """The colour in which the host paints what is to be inpainted."""
    return getattr(shared.opts, "img2img_inpaint_mask_brush_color", "#ffffff")
