"""Whether packages and weights that the user may have are here. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""The names under which the hub has weights."""


def package(module: str) -> str | None:
    """The lack of ``module`` in words; None if it can be imported."""
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        return f"the package {error.name} is missing"
    except Exception as error:  # whatever a foreign package raises beside others than it knows
        return " ".join(f"{module} cannot be imported here: {type(error).__name__}: {error}".split())[:160]
    return None


def absent(repository: str, files: Sequence[str] = WEIGHTS) -> str | None:
    """What is missing if none of ``files`` of ``repository`` of the Hugging Face hub is in its
    cache. A folder with the weights will do."""
    from huggingface_hub import try_to_load_from_cache

    if Path(repository).is_dir():
        return None
    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        return None
    return f"the weights of {repository} are missing" if files is WEIGHTS else f"{files[0]} of {repository} is missing"
