"""What is evaluated: a model, the network that counts the things in its pictures, and prompts that
it understands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..demo import MODEL, TRANSFORMER
from ..errors import AsynDMError
from . import counter, plan, prompt_sets
from .prompt_sets import PromptMaker
from .runner import Round


@dataclass(frozen=True)
class Subject:
    """A model to evaluate.

    ``model``: its checkpoint. ``counter``: the counter's weights. ``kinds``: the makers of its
    prompt sets, by name. ``rounds``: the pictures to make. ``results``: the name of the results
    file. ``small``: a few pictures, to see that it works.
    """

    name: str
    model: Path
    counter: Path
    kinds: Mapping[str, Sequence[PromptMaker]]
    rounds: Sequence[Round]
    results: str
    small: Sequence[Round] = plan.SMALL

    def about(self, machines: Iterable[str]) -> dict[str, Any]:
        """What a table's readers should know. ``machines`` are those that made the pictures."""
        return {
            "model": self.name,
            "made on": ", ".join(sorted(machines)),
            "the counter names": _accuracy(self.counter.with_suffix(".json")),
        }


EMBEDDED = Subject(MODEL.name, MODEL, counter.WEIGHTS, prompt_sets.PLAIN, plan.FULL, "results.json")

FLOW = Subject(
    TRANSFORMER.name,
    TRANSFORMER,
    counter.WEIGHTS,
    prompt_sets.PLAIN,
    plan.TRANSFORMER,
    "transformer.json",
    plan.SMALL_FLOW,
)
EMBEDDED_MODELS = {"unet": EMBEDDED, "transformer": FLOW}


def in_sceneries(folder: Path) -> Subject:
    """The model of scenes in sceneries in ``folder``. ``demo/training/README.md`` tells how to
    train it.

    Raises :class:`AsynDMError` if a part is missing.
    """
    model, weights = _there(folder / MODEL.name), _there(folder / counter.WEIGHTS.name)
    _accuracy(_there(weights.with_suffix(".json")))  # which is told after hours
    return Subject("trained on sceneries", model, weights, prompt_sets.SCENERY, plan.SCENERY, "scenery.json")


def on_two_levels(folder: Path) -> Subject:
    """The UNet in ``folder`` that was trained on two levels: that of sceneries where its counter
    lies beside it, else the embedded one.

    Raises :class:`AsynDMError` if a part is missing.
    """
    model = _there(folder / MODEL.name)
    # That training leaves the autoencoder as it is, and one for sceneries does not.
    if (folder / counter.WEIGHTS.name).is_file() or _autoencoder(model) != _autoencoder(MODEL):
        before = in_sceneries(folder)
    else:
        before = replace(EMBEDDED, model=model)
    name, results = f"{before.name}, trained on two levels", f"two-levels-{before.results}"
    return replace(before, name=name, rounds=plan.TWO_LEVELS, results=results)


def _there(path: Path) -> Path:
    """``path``, if there is such a file. Raises :class:`AsynDMError` if not."""
    if not path.is_file():
        raise AsynDMError(f"{path} is missing: asyndm_lib/demo/training/README.md says how to make it")
    return path


def _autoencoder(model: Path) -> bytes:
    """What tells the autoencoder of a checkpoint from another."""
    try:
        with safe_open(model, "np") as tensors:
            return tensors.get_tensor("first_stage_model.encoder.conv_in.weight").tobytes()
    except (SafetensorError, OSError) as error:
        raise AsynDMError(f"{model} is no checkpoint of the stage export: {error}") from error


def _accuracy(path: Path) -> str:
    """How a counter did, of which ``path`` tells. Raises :class:`AsynDMError` if it does not."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return f"{told['exact']:.1%} of {told['scenes']} new rendered scenes fully"
    except (ValueError, KeyError, TypeError) as error:
        raise AsynDMError(f"{path} does not tell how the counter did") from error
