"""Where the WebUI under test keeps its model, and where a patch might sit on it."""

from importlib.util import find_spec

FORGE = find_spec("modules_forge") is not None
NEO = FORGE and find_spec("modules_forge.packages") is not None
REFORGE = find_spec("k_diff") is not None

if REFORGE:
    from k_diff.k_diffusion import external, sampling
else:
    from k_diffusion import external, sampling

if FORGE:
    from forge_engine import (
        as_transformer,
        little_memory,
        loaded,
        patched_options,
        places,
        predictor,
        unet,
        without_model,
        wrapper,
    )
else:
    from a1111_engine import loaded, patched_options, places, predictor, unet, without_model

    as_transformer = little_memory = wrapper = None

__all__ = [
    "FORGE",
    "NEO",
    "REFORGE",
    "as_transformer",
    "external",
    "little_memory",
    "loaded",
    "patched_options",
    "places",
    "predictor",
    "sampling",
    "unet",
    "without_model",
    "wrapper",
]
