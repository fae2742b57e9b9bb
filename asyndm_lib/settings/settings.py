"""The settings: one model for the controls, the infotext, the API and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from ..clock.curves import CURVES
from ..errors import SettingsError
from ..prompt.target_list import MAX_LENGTH, parse_targets

AS_THE_MODEL, BY_LEVEL = NORMALISATIONS = ("as the model", "by level")
MASK_TIMINGS = ("lagged", "fresh", "static")
SECOND_PASSES = ("same", "off", "own concavity")

WORDS, PAINTED, INPAINT_MASK = REGIONS = ("words", "painted", "inpaint mask")
UNION, INTERSECTION = WITH_WORDS = ("union", "intersection")
MAX_MASK = 2**25
"""The most characters of a mask."""


def _setting(default: Any, label: str, help: str, **limits: Any) -> Any:
    return field(default=default, metadata={"label": label, "help": help, **limits})


@dataclass(frozen=True)
class Settings:
    """Settings of one picture, as a person chooses them.

    The order of the fields is the order of the script's arguments in saved API requests: a new one
    goes to the end.

    Every field's metadata holds ``label`` (for controls and infotext) and ``help`` (one sentence).
    Where they apply it holds ``minimum``, ``maximum``, ``step``, ``choices``, ``max_length``
    (characters), ``webui`` (True: the command line has no such option), ``aside`` (True: changes no
    picture) and ``picture`` (True: a picture in base64).

    Raises :class:`SettingsError` for a value of the wrong type or out of range, and
    :class:`TargetError` for a target list that cannot be read.
    """

    targets: str = _setting(
        "",
        "Targets",
        "Words of the prompt, divided by commas, that are to take shape more slowly than the rest. "
        "Empty: AsynDM chooses them. In cat, red heart:0.5, dog#2 the heart has a concavity of its own, "
        "and only the second dog is meant",
        max_length=MAX_LENGTH,
    )
    concavity: float = _setting(
        0.5,
        "Concavity",
        "How far the targets lag behind the rest of the picture: at 0 not at all, at 1 the most. The same value "
        "lags further on a Karras schedule than on a uniform one",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
    )
    curve: str = _setting(
        "quadratic", "Curve", "How the targets fall behind and catch up again; quadratic is the paper's", choices=CURVES
    )
    mask_timing: str = _setting(
        "lagged",
        "Mask timing",
        "How each step knows where the targets are: from the step before (lagged, as in the paper), from the step "
        "itself (fresh), or from an ordinary picture that is made first and takes as long again (static)",
        choices=MASK_TIMINGS,
    )
    threshold: float = _setting(
        1.0,
        "Mask threshold",
        "How clearly the model must see a target in a place for that place to lag: a higher value makes the slower "
        "regions smaller, a lower one larger (in multiples of the mean of the target's token map)",
        minimum=0.0,
        maximum=4.0,
        step=0.05,
    )
    whole_picture: bool = _setting(
        False, "Whole picture", "Everything lags alike, and the targets play no part (the paper's DM_concave)"
    )
    second_pass: str = _setting(
        "same",
        "Second pass",
        "Hires fix: its second pass goes as the first (same), without AsynDM (off), or with the concavity below",
        choices=SECOND_PASSES,
        webui=True,
    )
    second_concavity: float = _setting(
        0.5,
        "Second pass concavity",
        "How far the targets lag in hires fix's second pass, where that has a concavity of its own",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        webui=True,
    )
    show_masks: bool = _setting(
        False,
        "Show masks",
        "Add a sheet to each picture that shows what lagged, when, and where the model saw each target",
        webui=True,
        aside=True,
    )
    normalisation: str = _setting(
        AS_THE_MODEL,
        "Normalisation",
        "How a UNet evens out a picture whose places are at several noise levels: all together (as the model), "
        "or each as in a picture of its level alone (by level; an ordinary picture is made first: twice as long)",
        choices=NORMALISATIONS,
    )
    region: str = _setting(
        WORDS,
        "Region",
        "What lags: the regions of the target words (words), what you paint (painted), or what is to be inpainted "
        "(inpaint mask, in img2img); with a mask, words lag only if you name some",
        choices=REGIONS,
        webui=True,
    )
    with_words: str = _setting(
        UNION,
        "Mask and words",
        "Where there are a mask and target words: what belongs to either lags (union), "
        "or only what belongs to both (intersection)",
        choices=WITH_WORDS,
    )
    mask: str = _setting(
        "",
        "Mask",
        "The painted mask, stretched over the picture: a PNG picture in base64, in which white lags, "
        "or what is opaque where it has transparency",
        max_length=MAX_MASK,
        webui=True,
        picture=True,
    )

    @property
    def by_hand(self) -> bool:
        """Whether a mask by hand says what lags, alone or with words."""
        return self.region != WORDS and not self.whole_picture

    def of_second_pass(self) -> Settings | None:
        """The settings of hires fix's second pass; None if it goes without AsynDM."""
        if self.second_pass == "off":
            return None
        return replace(self, concavity=self.second_concavity) if self.second_pass == "own concavity" else self

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _checked(f, getattr(self, f.name)))
        parse_targets(self.targets)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from named values, with the defaults for the rest.

        Raises :class:`SettingsError` that names an unknown key, a wrong type or a value out of
        range, and :class:`TargetError` for a target list that cannot be read.
        """
        names = [f.name for f in fields(cls)]
        for key in values:
            if key not in names:
                raise SettingsError(f"AsynDM has no setting {key!r:.80}; it has {', '.join(names)}")
        return cls(**values)


EVERYWHERE = tuple(f for f in fields(Settings) if not f.metadata.get("webui"))
"""Fields of the settings that are options of the command line too."""


def _checked(f: Field[Any], value: Any) -> Any:
    label, meta = f.metadata["label"], f.metadata
    if isinstance(f.default, bool):
        if not isinstance(value, bool):
            raise SettingsError(f"{label} must be true or false, not {value!r:.80}")
    elif isinstance(f.default, float):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SettingsError(f"{label} must be a number, not {value!r:.80}")
        if not meta["minimum"] <= value <= meta["maximum"]:
            raise SettingsError(f"{label} must be from {meta['minimum']:g} to {meta['maximum']:g}, not {value!r:.80}")
        value = float(value)
    elif not isinstance(value, str):
        raise SettingsError(f"{label} must be text, not {value!r:.80}")
    elif "choices" in meta and value not in meta["choices"]:
        raise SettingsError(f"{label} must be one of {', '.join(meta['choices'])}, not {value!r:.80}")
    return value
