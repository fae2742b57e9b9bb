"""Target words marked in the prompt: the page's controls, and the tags' way through the WebUI."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules import extra_networks, script_callbacks
from modules.ui_components import ToolButton

from ..prompt.target_list import replace_tags

_NUMBER_SIGN, _STAND_IN = "#", "\N{FULLWIDTH NUMBER SIGN}"
_PROMPTS = ("prompt", "main_prompt", "all_prompts", "prompts", "hr_prompt", "all_hr_prompts")


class AsynTags(extra_networks.ExtraNetwork):
    """The tags, for the WebUI, which takes them out of the prompts before it encodes them."""

    def __init__(self) -> None:
        super().__init__("asyn")

    def activate(self, p: Any, params_list: list[Any]) -> None:
        pass

    def deactivate(self, p: Any) -> None:
        pass


def register() -> None:
    """Make tags and controls known to the WebUI, whenever it loads its scripts."""
    script_callbacks.on_before_ui(lambda: extra_networks.register_extra_network(AsynTags()))
    script_callbacks.on_before_token_counter(_before_token_counter)
    script_callbacks.on_after_component(_after_component)


def panel(elem_id: str) -> None:
    """The place where the page shows the prompt's words and which tokens the targets are."""
    # An elem_id of gr.HTML would be there twice.
    gr.HTML(
        f'<div id="{elem_id}" class="asyndm-panel"><div class="asyndm-words"></div>'
        '<div class="asyndm-status" role="status" aria-live="polite"></div><div class="asyndm-hint"></div></div>'
    )


def shield(p: Any) -> None:
    """Keep the numbers in the tags of ``p``'s prompts: ``<asyn:dog#2>`` holds no comment.

    It is called before the WebUI takes the comments, which begin with #, out of the prompts.
    """
    _exchange(p, _NUMBER_SIGN, _STAND_IN)


def unshield(p: Any) -> None:
    """Give ``p`` its prompts as typed, before every batch."""
    _exchange(p, _STAND_IN, _NUMBER_SIGN)


def _exchange(p: Any, old: str, new: str) -> None:
    for name in _PROMPTS:
        prompts = getattr(p, name, None)
        if isinstance(prompts, str):
            setattr(p, name, _exchanged(prompts, old, new))
        elif prompts:
            prompts[:] = [_exchanged(prompt, old, new) for prompt in prompts]


def _exchanged(prompt: str, old: str, new: str) -> str:
    return replace_tags(prompt, lambda tag: tag.replace(old, new))


def _before_token_counter(params: Any) -> None:
    params.prompt = _exchanged(params.prompt, _NUMBER_SIGN, _STAND_IN)


def _after_component(component: Any, elem_id: str | None = None, **_: Any) -> None:
    for tab in ("txt2img", "img2img"):
        if elem_id == f"{tab}_style_apply":
            tooltip = "Make the word at the cursor a target of AsynDM, or none"
            ToolButton("🎯", elem_id=f"{tab}_asyndm_mark", tooltip=tooltip)
