"""A JSON schema of the settings, for programs that send them."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

from .settings import Settings

ENABLED = {
    "type": "boolean",
    "title": "Enabled",
    "description": "Whether AsynDM is on; naming any settings at all switches it on",
    "default": True,
}
_KEYWORDS = {"minimum": "minimum", "maximum": "maximum", "max_length": "maxLength", "choices": "enum"}
"""Names of a setting's metadata → the schema's words for them."""


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of the object that names settings, ready for ``json.dumps``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "AsynDM",
        "type": "object",
        "properties": {"enabled": dict(ENABLED), **{f.name: _property(f) for f in fields(Settings)}},
        "additionalProperties": False,
    }


def _property(field: Field[Any]) -> dict[str, Any]:
    kind = {bool: "boolean", float: "number", str: "string"}[type(field.default)]
    limits = {word: field.metadata[name] for name, word in _KEYWORDS.items() if name in field.metadata}
    if "enum" in limits:
        limits["enum"] = list(limits["enum"])
    meta = field.metadata
    return {"type": kind, "title": meta["label"], "description": meta["help"], "default": field.default, **limits}
