"""The section "AsynDM" of the host's Settings page: what a person's own accordion begins with."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import gradio as gr
from modules import shared

from ..errors import AsynDMError
from ..settings.settings import Settings

SECTION = ("asyndm", "AsynDM")
HOTKEY = "asyndm_hotkey"
LIVE_VIEW = "asyndm_live_view"
DEFAULTS = (
    "What the controls of the accordion begin with is set here. <i>Settings → Defaults</i> keeps only whether the "
    "accordion is on."
)
OWN = tuple(f for f in fields(Settings) if f.name not in ("targets", "mask"))
"""The settings that can have a default of one's own; targets belong to their prompt, and a mask to
its picture."""


def register() -> None:
    """Add our options to the host's."""
    explanation = shared.OptionHTML(DEFAULTS)
    explanation.section = SECTION
    shared.opts.add_option("asyndm_defaults", explanation)
    for field in OWN:
        component, limits = _component(field)
        meta = field.metadata
        option = shared.OptionInfo(field.default, f"{meta['label']} at first", component, limits, section=SECTION)
        shared.opts.add_option(_key(field), option.info(meta["help"]).needs_reload_ui())
    live = shared.OptionInfo(False, "Outline in the live preview what lags just now", section=SECTION)
    shared.opts.add_option(LIVE_VIEW, live.info("in the previews that you see while a picture is made"))
    hotkey = shared.OptionInfo("Alt+M", "Key that makes the word at the cursor a target, or none", section=SECTION)
    shared.opts.add_option(HOTKEY, hotkey.info("such as Alt+M or Ctrl+Shift+Y; empty for none"))


def default(field: Any) -> Any:
    """The value that a setting's control begins with: the person's own default, where possible."""
    if field not in OWN:
        return field.default
    value = getattr(shared.opts, _key(field), field.default)
    try:
        return getattr(Settings(**{field.name: value}), field.name)
    except AsynDMError:  # config.json may have been written by hand, or by another version
        return field.default


def live_view() -> bool:
    """Whether the live preview is to show what lags."""
    return bool(getattr(shared.opts, LIVE_VIEW, False) and shared.opts.live_previews_enable)


def _key(field: Any) -> str:
    return f"asyndm_default_{field.name}"


def _component(field: Any) -> tuple[Any, dict[str, Any]]:
    meta = field.metadata
    if isinstance(field.default, bool):
        return gr.Checkbox, {}
    if isinstance(field.default, float):
        return gr.Slider, {name: meta[name] for name in ("minimum", "maximum", "step")}
    return gr.Radio, {"choices": list(meta["choices"])}
