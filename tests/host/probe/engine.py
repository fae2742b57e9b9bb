"""Where the WebUI under test keeps its model, and where a patch might sit on it."""

from importlib.util import find_spec

FORGE = find_spec("modules_forge") is not None
NEO = FORGE and find_spec("modules_forge.packages") is not None

if FORGE:
    from forge_engine import (
        as_transformer,
        little_memory,
        loaded,
        patched_options,
        places,
        unet,
        without_model,
        wrapper,
    )
else:
    from a1111_engine import loaded, patched_options, places, unet, without_model

    as_transformer = little_memory = wrapper = None

__all__ = [
    "FORGE",
    "NEO",
    "as_transformer",
    "little_memory",
    "loaded",
    "patched_options",
    "places",
    "unet",
    "without_model",
    "wrapper",
]
