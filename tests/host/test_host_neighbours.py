"""Other extensions beside this one: neither loses its effect, and neither breaks the other.

Each way of hooking into the host is there as a stand-in (``neighbours/``). The real extensions join
them where they are installed in the WebUI's ``extensions`` folder, or in the folder that
``ASYNDM_WEBUI_EXTENSIONS`` names.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pictures
import pytest
from family import HOST
from materials import LORA
from neighbour_models import CONTROL, DETECTOR, WIDE
from PIL import Image
from requests_table import BASE, PROMPT, arguments, drawing, in_base64
from webui import PROBE, REPOSITORY, Answer, WebUI, python_of
from webui_page import SETTINGS, opened

pytestmark = [
    pytest.mark.usefixtures("nothing_left", "quiet"),
    pytest.mark.skipif("neighbours" in HOST.lacks, reason=HOST.lacks.get("neighbours", "")),
]

FOLDER = Path(os.environ["ASYNDM_WEBUI"])
EXTENSIONS = Path(os.environ.get("ASYNDM_WEBUI_EXTENSIONS") or FOLDER / "extensions")
STAND_INS = Path(__file__).with_name("neighbours")
NOT_ALWAYS = {"tiny_controlnet", "forge", "tiles"}
VISIBLE = 0.5
"""The mean difference of the pixels, in levels, by which an effect shows."""


@dataclass(frozen=True)
class Neighbour:
    """Another extension.

    ``script``: its name in the API.
    ``on``: its arguments.
    ``changed``: what a request has only with it.
    ``request``: what a request has without it too.
    ``real``: its folder; None for a stand-in.
    ``discrete``: whether it works with DDIM.
    ``passes``: whether it works with a second pass of another size.
    ``refused``: part of the message that names it, where the picture is made without AsynDM.
    ``beside``: the arguments of others that are switched on with it, by their names in the API.
    ``encodes``: whether it encodes a picture, for which the WebUI draws random numbers that go by
    the jobs before.
    ``keeps``: whether it keeps what it drew in the model's first call, so that the numbers it draws
    after the ordinary pass before static masks are others.
    """

    script: str
    on: tuple[Any, ...] = (True,)
    request: dict[str, Any] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)
    real: str | None = None
    discrete: bool = True
    passes: bool = True
    refused: str = ""
    beside: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    encodes: bool = False
    keeps: bool = False

    @property
    def name(self) -> str:
        return self.real or self.script

    @property
    def scripts(self) -> dict[str, dict[str, Any]]:
        """What switches it on in a request."""
        return {name: {"args": args} for name, args in {self.script: self.on, **self.beside}.items()}


def _unit(**values: Any) -> tuple[dict[str, Any]]:
    return ({"enabled": True, "module": "none", "model": "None", "image": in_base64(drawing()), **values},)


def _options(**values: Any) -> dict[str, Any]:
    return {"override_settings": values}


AND = {"prompt": "a cat and a dog AND a red heart:0.8"}
AND_PERP = {"prompt": "a cat and a dog AND_PERP a red heart:0.8"}
BREAK = {"prompt": "a cat and a dog BREAK a red heart"}
NEGATIVE = {"prompt": "a cat and a dog with a red heart, (a house:-1)"}
BREAK_WITHOUT = {"prompt": "a cat and a dog BREAK a red heart, (a house:-1)"}
BREAK_WHERE = {"prompt": "a cat and a dog with a red heart BREAK a red heart, heart"}


def _regional(
    calculation: str = "Attention", tab: str = "Matrix", base: bool = False, threshold: str = "0.4"
) -> tuple[Any, ...]:
    """The arguments of Regional Prompter. ``base``: with a base and a common prompt. ``threshold``:
    of the maps by which its prompt mode finds the region of a word."""
    mask = f"data:image/png;base64,{in_base64(_colours())}" if tab == "Mask" else None
    return (
        *(True, False, tab, "Columns", "Mask", "Prompt", "1,1", "0.2", base, False, False, calculation, []),
        *("0", "0", threshold, mask, "0", "0", False),
    )


def _colours() -> Image.Image:
    """A mask of two regions: colours of the hues that Regional Prompter knows as the first two."""
    mask = Image.new("RGB", (96, 96), (128, 64, 64))
    mask.paste((64, 128, 128), (48, 0, 96, 96))
    return mask


FREEU = ("2", *(1.0, 1.0, 0.0, 0.5, 0.2, 1.0) * 2, *(1.6, 0.4, 0.0, 0.5, 0.2, 1.0))


def _lora(weight: str) -> dict[str, Any]:
    return {"prompt": f"{PROMPT} <lora:{LORA}:{weight}>"}


def _incantations(**values: Any) -> tuple[Any, ...]:
    """The arguments of that extension, by the names of its parts."""
    given = {**dict.fromkeys(("seg", "scfg", "pag", "fusion", "t2i_zero"), False), **values}
    seg, scfg = (given["seg"], 11.0, 0, 150), (given["scfg"], 1.0, 0.8, 3.0, 0.0, 0, 150, 4)
    pag = (given["pag"], 8.0, 0, 150, False, "Constant", 0, 100, given["fusion"])
    t2i_zero = (given["t2i_zero"], True, 2, 0.1, 0.5, 0.5, "2", 0.0, 25, 0)
    return (*seg, *scfg, *pag, *t2i_zero, False, False, False, "BREAK", "-", 0.2, 10)


def _fabric() -> tuple[Any, ...]:
    """The arguments of FABRIC, with a picture that is liked."""
    weights, merging = (0.0, 0.8, 0.0, 0.8, 0.5), (False, 0.5, 8192, -1)
    return ([str(REPOSITORY / "docs" / "page.png")], [], True, *weights, False, *merging)


def _llul(*places: str) -> tuple[Any, ...]:
    """The arguments of LLuL, which evaluates a part of the feature maps at ``places`` enlarged. For
    its infotexts AUTOMATIC1111 takes them for one of each picture."""
    ways = ("Bilinear", False, "Bilinear", False, "Lerp")
    return (True, 1, 0.6, True, "", [*places] * 3, 1, 0, *ways, "", "", False, False, None, False)


CUTOFF = ("red, red", 1.0, True, True, "", "Lerp", False)
"""Its targets are twice the same, since it writes them to the infotexts as a list, which the WebUI
takes for one of each picture: with fewer than there are pictures it reports an error."""

LARGE = {"width": 128, "height": 128}
INCANTATIONS = {"real": "sd-webui-incantations"}
REGIONS_OF = {"real": "sd-webui-regional-prompter"}
DAEMON = (True, "both", 0.0, 1.0, 0.5, 0.3, 1.0, 0.0, 0.0, 0.0, True)
"""A daemon after whether it is active: whether it is for the second pass, and its numbers."""
DETAILER = (
    True,
    False,
    {"ad_model": DETECTOR, "ad_confidence": 0.0, "ad_mask_k": 1, "ad_denoising_strength": 0.8, "ad_mask_blur": 0},
)
CALLBACKS = "stand-in callbacks"
KOHYA = (3, 4, 0.4, 0.5, "bicubic", 0.5, 2.0)
NEIGHBOURS = {
    "control model": Neighbour("stand-in controlnet", (True, 0.05, False)),
    "reference picture": Neighbour("stand-in controlnet", (True, 0.0, True)),
    "FreeU": Neighbour("stand-in freeu"),
    "dynamic thresholding": Neighbour("stand-in dynamic thresholding", request={"cfg_scale": 9}, discrete=False),
    "neutral prompt": Neighbour("stand-in neutral prompt", request=AND, changed=AND_PERP),
    "Kohya hires fix": Neighbour("stand-in kohya hires", (True, False)),
    "Kohya hires fix, early": Neighbour("stand-in kohya hires", (True, True)),
    "detail": Neighbour("stand-in detail"),
    "perturbed attention": Neighbour("stand-in perturbed attention"),
    **{f"edited {what}": Neighbour(CALLBACKS, (what,)) for what in ("conditioning", "noise", "attention")},
    "edited regions": Neighbour(CALLBACKS, ("regions",), request=AND),
    "edited latents": Neighbour(CALLBACKS, ("latents",), discrete=False),
    "own denoiser": Neighbour("stand-in own denoiser", refused="stand_in_own_denoiser.py"),
    "regions": Neighbour("stand-in regional", request=BREAK),
    "regions, base": Neighbour("stand-in regional", (True, "rows", 0.3), request=BREAK),
    "negative words": Neighbour("stand-in negative words", ("a house",)),
    "parts first": Neighbour("stand-in parts first", request=AND),
    "counting": Neighbour("stand-in counting"),
    "ADetailer": Neighbour("stand-in adetailer", (True, "", "")),
    "ADetailer, listed": Neighbour("stand-in adetailer", (True, "asyndm", "")),
    "real control model": Neighbour("controlnet", _unit(model=CONTROL, weight=0.3), real="sd-webui-controlnet"),
    "real reference picture": Neighbour(
        "controlnet", _unit(module="reference_only"), real="sd-webui-controlnet", keeps=True
    ),
    "real control models": Neighbour(
        "controlnet",
        _unit(model=CONTROL, weight=0.3) + _unit(model=CONTROL, weight=0.2, image=in_base64(drawing().rotate(90))),
        real="sd-webui-controlnet",
    ),
    "real control model and reference": Neighbour(
        "controlnet",
        _unit(model=CONTROL, weight=0.3) + _unit(module="reference_only"),
        real="sd-webui-controlnet",
        keeps=True,
    ),
    "real FreeU": Neighbour(
        "freeu", (True, 0, 1, 0, *FREEU), _options(sd_model_checkpoint=f"tiny-{WIDE}"), real="sd-webui-freeu"
    ),
    "real dynamic thresholding": Neighbour(
        "dynamic thresholding (cfg scale fix)",
        (True, 2.0, 95.0, "Constant", 0, "Constant", 0, 4.0, True, "MEAN", "AD", 1.0),
        {"cfg_scale": 12},
        real="sd-dynamic-thresholding",
        discrete=False,
    ),
    **{
        f"real {name}": Neighbour("incantations", _incantations(**parts), **INCANTATIONS)
        for name, parts in {
            "PAG": {"pag": True},
            "PAG with noise fusion": {"pag": True, "fusion": True},
            "S-CFG": {"scfg": True},
            "T2I-Zero": {"t2i_zero": True},
            "PAG, SEG and S-CFG": {"pag": True, "seg": True, "scfg": True},
        }.items()
    },
    "real CADS": Neighbour("cads", (True, 0.3, 0.9, 0.25, 1.0, True, False), real="sd-webui-cads"),
    "real Detail Daemon": Neighbour(
        "detail daemon",
        (True, True, False, *DAEMON[1:], True, *DAEMON, *(False, *DAEMON) * 4),
        real="sd-webui-detail-daemon",
    ),
    "real Latent Couple": Neighbour(
        "latent couple extension",
        (True, "1:1,1:2", "0:0,0:1", "0.5,0.8", 20),
        AND,
        real="stable-diffusion-webui-two-shot",
    ),
    "real ReSharpen": Neighbour(
        "resharpen", (True, 1.0, "Flat", 1.0, "Flat"), real="sd-webui-resharpen", discrete=False
    ),
    "real Vectorscope CC": Neighbour(
        "vectorscope cc",
        (True, True, 2.0, 0.5, 1.3, 1.0, 0.0, -1.0, True, False, False, "Cross Noise", "1 - Sin"),
        real="sd-webui-vectorscope-cc",
        discrete=False,
    ),
    "real LoRA Block Weight": Neighbour(
        "lora block weight",
        (),
        changed=_lora("1:1:lbw=OUTALL:step=2-4"),
        real="sd-webui-lora-block-weight",
    ),
    "real loractl": Neighbour(
        "dynamic lora weights", (True, False), changed=_lora("1@0,1@0.5,0@1"), real="sd-webui-loractl"
    ),
    "real Characteristic Guidance": Neighbour(
        "characteristic guidance",
        (1.0, 1.0, 50, 0, 1.0, -4.0, 1.0, 0.4, 0.5, 2, True, "", "More ControlNet", 0.0, 1.0),
        real="CharacteristicGuidanceWebUI",
        refused="CHGextension.py",
    ),
    "real neutral prompt": Neighbour(
        "neutral prompt",
        (0.0,),
        AND,
        {**AND_PERP, **_options(neutral_prompt_enabled=True)},
        real="sd-webui-neutral-prompt",
    ),
    "real Regional Prompter": Neighbour("regional prompter", _regional(), BREAK, **REGIONS_OF),
    "real Regional Prompter, base": Neighbour(
        "regional prompter",
        _regional(base=True),
        {"prompt": "a garden BREAK a cat and a dog BREAK a red heart"},
        **REGIONS_OF,
    ),
    "real Regional Prompter, latent": Neighbour("regional prompter", _regional("Latent"), BREAK, **REGIONS_OF),
    "real Regional Prompter, mask": Neighbour("regional prompter", _regional(tab="Mask"), BREAK, **REGIONS_OF),
    "real Regional Prompter, prompt": Neighbour(
        "regional prompter",
        _regional(tab="Prompt", threshold="0.9"),  # with its own one region is all of a second pass
        {**BREAK_WHERE, **_options(sd_model_checkpoint="tiny-sd2-v")},  # of the usual vocabulary
        **REGIONS_OF,
    ),
    "real Regional Prompter, XL": Neighbour(
        "regional prompter", _regional(), {**BREAK, **_options(sd_model_checkpoint="tiny-sdxl")}, **REGIONS_OF
    ),
    "real Regional Prompter and NegPiP": Neighbour(
        "regional prompter", _regional(), changed=BREAK_WITHOUT, beside={"negpip": (True,)}, **REGIONS_OF
    ),
    "real NegPiP": Neighbour("negpip", (True,), changed=NEGATIVE, real="sd-webui-negpip"),
    "real Cutoff": Neighbour("cutoff", (True, *CUTOFF), real="sd-webui-cutoff"),
    "real Dynamic Prompts": Neighbour(
        "dynamic prompts v2.17.1",
        (True,),
        changed={"prompt": "a {cat|cat} and a house with a {blue|blue} heart"},
        real="sd-dynamic-prompts",
    ),
    "real ADetailer": Neighbour("adetailer", DETAILER, real="adetailer", encodes=True),
    "real ADetailer, listed": Neighbour(
        "adetailer", DETAILER, _options(ad_script_names="asyndm"), real="adetailer", encodes=True
    ),
    "real Kohya hires fix": Neighbour(
        "kohya hires.fix", (True, True, *KOHYA, True, False), real="sd-webui-kohya-hiresfix"
    ),
    "real negative prompt weight": Neighbour(
        "negative prompt weight extention", (0.2,), {"negative_prompt": "a red house"}, real="stable-diffusion-NPW"
    ),
    "real FABRIC": Neighbour("fabric", _fabric(), real="sd-webui-fabric", encodes=True, keeps=True),
    "real LLuL": Neighbour("llul", _llul("OUT"), LARGE, real="sd-webui-llul", passes=False),
    "real LLuL, blocks": Neighbour("llul", _llul("Resblock"), LARGE, real="sd-webui-llul", passes=False),
}
VARIANTS = {
    "Euler": {},
    "DDIM": {"sampler_name": "DDIM"},
    "batch of 2": {"batch_size": 2},
    "hires fix": {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7},
    "static": {},
}
UNKNOWN_AT_FIRST = {
    **dict.fromkeys(("dp_ignore_whitespace", "dp_write_raw_template", "dp_write_prompts_to_file"), False),
    **dict.fromkeys(("dp_limit_jinja_prompts", "dp_auto_purge_cache", "dp_wildcard_manager_no_dedupe"), False),
    **dict.fromkeys(("dp_wildcard_manager_no_sort", "dp_wildcard_manager_shuffle"), False),
    "dp_parser_variant_start": "{",
    "dp_parser_variant_end": "}",
    "dp_parser_wildcard_wrap": "__",
    "dp_magicprompt_batch_size": 1,
}
"""Options that Dynamic Prompts reads, and tells A1111 v1.10.1 of too late."""

KEPT = {"enabled-checkbox": True, **SETTINGS}
"""Settings in a preset of another extension's, by the ends of our controls' ids."""


def _present(neighbour: Neighbour) -> bool:
    return neighbour.real is None or (EXTENSIONS / neighbour.real).is_dir()


def _param(name: str, *values: Any) -> Any:
    neighbour = NEIGHBOURS[name]
    absent = pytest.mark.skipif(not _present(neighbour), reason=f"{neighbour.real} is not installed")
    return pytest.param(neighbour, *values, marks=absent, id=", ".join((name, *values)))


UPSCALE, SCHEDULER, PRESETS = "ultimate-upscale-for-automatic1111", "sd-webui-agent-scheduler", "Config-Presets"
REAL = {n.real for n in NEIGHBOURS.values() if n.real and _present(n)}
REAL |= {name for name in (UPSCALE, SCHEDULER, PRESETS) if (EXTENSIONS / name).is_dir()}
CASES = [
    _param(name, variant)
    for name, neighbour in NEIGHBOURS.items()
    for variant in VARIANTS
    if (variant != "DDIM" or neighbour.discrete) and (variant != "hires fix" or neighbour.passes)
    if not neighbour.refused
]
REFUSED = [_param(name, variant) for name, neighbour in NEIGHBOURS.items() if neighbour.refused for variant in VARIANTS]


@pytest.fixture(scope="module")
def installed(folder):
    """All of them, by the names of their folders, and the models that they need."""
    beside = {f"stand_in_{p.name}": p for p in STAND_INS.iterdir() if p.name not in NOT_ALWAYS}
    beside |= {name: _copy(EXTENSIONS / name, folder / "real") for name in REAL}
    if PRESETS in REAL:
        kept = {f"script_txt2img_asyndm_{name}": value for name, value in KEPT.items()}
        (beside[PRESETS] / "config-txt2img-custom-tracked-components.txt").write_text("\n".join(kept))
        (beside[PRESETS] / "config-txt2img.json").write_text(json.dumps({"None": {}, "mine": kept}))
    if "sd-webui-controlnet" in REAL:
        beside["tiny_controlnet"] = STAND_INS / "tiny_controlnet"
    wanted = REAL & {"sd-webui-controlnet", "sd-webui-freeu", "adetailer"}
    if wanted:
        _make_models(folder / "models", wanted)
    return beside


def _started(folder: Path, extensions: dict[str, Path]) -> Iterator[WebUI]:
    server = WebUI(FOLDER, folder, extensions, options=UNKNOWN_AT_FIRST)
    try:
        server.wait()
        # It is on where nobody asked for it.
        if "neutral prompt" in server.get("/sdapi/v1/scripts")["txt2img"]:
            server.post("/sdapi/v1/options", {"neutral_prompt_enabled": False})
        server.make(BASE)  # the first request that names a script may otherwise fail
        yield server
    finally:
        server.stop()


@pytest.fixture
def hooks_of_others() -> bool:
    """PAG of sd-webui-incantations takes its own away when the next job begins."""
    return True


@pytest.fixture(scope="module")
def host(folder, installed):
    """A WebUI with AsynDM and all of them."""
    yield from _started(folder / "neighbours", {"asyndm": REPOSITORY, "asyndm_probe": PROBE, **installed})


@pytest.fixture(scope="module")
def without(folder, installed):
    """One without AsynDM."""
    yield from _started(folder / "neighbours-alone", installed)


def _copy(extension: Path, folder: Path) -> Path:
    """A copy of an extension, since some write their settings into their own folder. What it
    downloaded is left out."""

    def ignored(path: str, names: list[str]) -> set[str]:
        return {".git", "models"} & set(names) if Path(path) == extension else {"downloads"} & set(names)

    copy = Path(shutil.copytree(extension, folder / extension.name, ignore=ignored))
    if (extension / "models").is_dir():
        (copy / "models").mkdir()
    return copy


def _make_models(models: Path, wanted: Iterable[str]) -> None:
    ldm = FOLDER / "repositories" / "stable-diffusion-stability-ai"
    environment = {**os.environ, "PYTHONPATH": str(ldm), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    maker = Path(__file__).with_name("neighbour_models.py")
    subprocess.run([python_of(FOLDER), maker, models, *wanted], cwd=REPOSITORY / "tests", env=environment, check=True)


def loaded(host: WebUI, neighbour: Neighbour) -> bool:
    """Whether the WebUI has the neighbour's script."""
    return neighbour.script in host.get("/sdapi/v1/scripts")["txt2img"]


class Four:
    """The four pictures of a request: with neither extension, with either, and with both."""

    MADE: ClassVar[dict[str, Answer]] = {}

    def __init__(
        self,
        host: WebUI,
        neighbour: Neighbour,
        variant: str = "Euler",
        settings: dict | None = None,
        variants: dict = VARIANTS,
    ):
        if not loaded(host, neighbour):
            pytest.skip(f"{neighbour.name} did not load in this WebUI")
        if variant == "static":
            settings = {"targets": "cat", "mask_timing": "static"}
        self._host, self._request = host, {**BASE, **neighbour.request, **variants[variant]}
        overrides = [r.get("override_settings", {}) for r in (neighbour.request, neighbour.changed)]
        self._changed = {**neighbour.changed, "override_settings": {**overrides[0], **overrides[1]}}
        self._scripts = neighbour.scripts
        self._settings = {"targets": "cat"} if settings is None else settings

    def make(self, theirs: bool, ours: bool, refused: str = "", **settings: Any) -> Answer:
        """One of the pictures. ``refused`` is part of the message if it is made without AsynDM."""
        request = {**self._request, **(self._changed if theirs else {})}
        scripts = {**(self._scripts if theirs else {}), **(self._ours(**settings) if ours else {})}
        answer = self._host.make({**request, "alwayson_scripts": scripts})
        assert answer.status == 200, answer.info
        assert all(map(pictures.has_content, answer.pictures[: self.count]))
        assert bool(answer.messages) == bool(refused)
        assert all(refused in message for message in answer.messages)  # each pass has its own
        assert ("AsynDM" in answer.infotext) == (ours and not refused)
        return answer

    def _ours(self, **settings: Any) -> dict[str, Any]:
        return {"asyndm": {"args": arguments({**self._settings, **settings})}}

    def once(self, theirs: bool, ours: bool) -> Answer:
        """The same picture, made only once for all neighbours that have this request."""
        key = repr((self._host.port, self._request, theirs and self._scripts, ours and self._ours()))
        if key not in self.MADE:
            self.MADE[key] = self.make(theirs, ours)
        return self.MADE[key]

    @property
    def count(self) -> int:
        """The number of pictures asked for. ControlNet adds what it saw after them."""
        return self._request.get("batch_size", 1)

    def distance(self, one: Answer, other: Answer) -> float:
        """The distance of the two pictures that differ least."""
        pairs = zip(one.pictures[: self.count], other.pictures[: self.count], strict=True)
        return min(pictures.distance(a, b) for a, b in pairs)


@pytest.mark.parametrize(("neighbour", "variant"), CASES)
def test_both_effects_show(neighbour, variant, host):
    four = Four(host, neighbour, variant)
    neither, ours = four.once(False, False), four.once(False, True)
    if neighbour.encodes:
        four.make(True, False)
    theirs, hooks = four.make(True, False), host.get("/asyndm-probe/hooks")
    still, both, again = four.make(True, True, concavity=0.0), four.make(True, True), four.make(True, True)
    assert host.get("/asyndm-probe/hooks") == hooks, "not the hooks that the other extension leaves by itself"
    after = four.make(False, False)

    assert (neighbour.keeps and variant == "static") or four.distance(still, theirs) == 0, "concavity 0 is another"
    assert both.pictures == again.pictures, "the same request made another picture"
    assert after.pictures == neither.pictures, "the host is not as it was"
    to_theirs, to_ours = four.distance(both, theirs), four.distance(both, ours)
    print(f"both to theirs: {to_theirs}, to ours: {to_ours}")
    assert four.distance(ours, neither) > VISIBLE, "nothing is proved without an effect"
    assert min(to_theirs, to_ours) > VISIBLE


@pytest.mark.parametrize("neighbour", [_param(name) for name, n in NEIGHBOURS.items() if n.real and not n.refused])
def test_off_it_is_the_picture_of_a_webui_without_asyndm(neighbour, host, without):
    made = []
    for server in (host, without):
        four = Four(server, neighbour)
        if neighbour.encodes:
            four.make(True, False)
        made.append(four.make(True, False))
        four.make(False, False)  # until then some of their hooks stay in place
    assert four.distance(*made) == 0


@pytest.mark.parametrize(("neighbour", "variant"), REFUSED)
def test_where_both_cannot_be_a_message_names_the_other(neighbour, variant, host):
    """And the picture is the other's own."""
    four = Four(host, neighbour, variant)
    neither, theirs = four.once(False, False), four.make(True, False)
    both = four.make(True, True, refused=neighbour.refused)
    # Pictures: the infotext of one holds the message. Characteristic Guidance's own differ by 0.01.
    assert four.distance(both, theirs) <= (0.05 if neighbour.real else 0)
    assert four.distance(theirs, neither) > VISIBLE, "nothing is proved without an effect"
    assert four.make(False, True).pictures == four.once(False, True).pictures
    four.make(True, False)  # Characteristic Guidance keeps its last job, and what that was told


@pytest.mark.parametrize("variant", ["Euler", "DDIM", "batch of 2", "hires fix"])
@pytest.mark.parametrize(
    ("neighbour", "path"),
    [
        _param("control model", "/stand-in-controlnet/seen"),
        _param("reference picture", "/stand-in-controlnet/seen"),
        _param("real control model", "/tiny-controlnet/seen"),
    ],
)
def test_a_control_model_and_a_reference_are_given_one_time_for_each_row(neighbour, path, variant, host):
    """The time is that of the host's step. The pass of a reference picture is what it would be
    without AsynDM."""
    four = Four(host, neighbour, variant)
    seen = []
    for ours in (False, True):
        host.post(path)
        four.make(True, ours)
        seen.append(host.post(path))
    four.make(False, False)  # until then their forward stays in place
    without, beside = seen
    assert without == beside
    timesteps = beside["timesteps"] if isinstance(beside, dict) else beside
    assert len(timesteps) >= BASE["steps"]
    assert all(len(set(rows)) == 1 for rows in timesteps)
    if neighbour.on[-1] is True:
        assert len(set(beside["references"])) == len(timesteps)


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
@pytest.mark.parametrize("listed", ["", "asyndm"])
def test_a_job_within_the_job_changes_only_what_it_redraws(listed, sampler, host):
    """It samples with AsynDM only where its list of scripts names it; the outer picture is the
    same."""
    usual = Four(host, NEIGHBOURS["ADetailer"], "DDIM" if sampler == "DDIM" else "Euler")
    other = Four(host, Neighbour("stand-in adetailer", (True, "another_script", "")), sampler)
    nested = Four(host, Neighbour("stand-in adetailer", (True, listed, "")), sampler)
    answers = usual.make(False, True), nested.make(True, True), other.make(True, True)
    ours, both, unlisted = (pictures.pixels(answer.pictures[0]) for answer in answers)
    below = 3 * len(ours) // 4
    assert (both[below:] == ours[below:]).all()
    assert (both != ours).any()
    assert ((both != unlisted).any()) == bool(listed)


def test_what_a_job_within_the_job_says_stays_there(host):
    """The message goes to the console, since the picture that is asked for was made with AsynDM."""
    start = host.log_size()
    four = Four(host, Neighbour("stand-in adetailer", (True, "asyndm", "a house")))
    four.make(True, True)
    assert host.log(start).count("AsynDM: ") == 1


@pytest.mark.parametrize("listed", ["", "asyndm"])
def test_a_message_outlives_the_job_within(listed, host):
    scripts = {"stand-in adetailer": {"args": [True, listed, "a cat"]}}
    scripts["asyndm"] = {"args": arguments({"targets": "cat, zebra"})}
    answer = host.make({**BASE, "batch_size": 2, "alwayson_scripts": scripts})
    assert len(answer.messages) == 1
    assert '"zebra" not found' in answer.messages[0]


@pytest.mark.parametrize("listed", ["", "asyndm"])
def test_the_sheets_outlive_the_job_within(listed, host):
    settings = {"targets": "cat", "show_masks": True}
    scripts = {"stand-in adetailer": {"args": [True, listed, ""]}, "asyndm": {"args": arguments(settings)}}
    answer = host.make({**BASE, "n_iter": 2, "alwayson_scripts": scripts})
    shapes = [pictures.pixels(picture).shape[:2] for picture in answer.pictures]
    assert [shape == (96, 96) for shape in shapes] == [True, True, False, False]


@pytest.mark.parametrize("kind", ["stand-in", "real"])
def test_all_at_once(kind, host):
    known = host.get("/sdapi/v1/scripts")["txt2img"]
    chosen = [n for n in NEIGHBOURS.values() if (n.real is not None) == (kind == "real") and n.script in known]
    chosen = [n for n in chosen if not n.refused]
    # Those that want a prompt, a size or a checkpoint of their own are not for one request.
    chosen = [n for n in chosen if n.request == AND or n.request.keys() <= {"cfg_scale", "negative_prompt"}]
    chosen = [n for n in chosen if n.changed.get("prompt", AND_PERP["prompt"]) == AND_PERP["prompt"]]
    # Other real ones take the one's feature maps for those of the picture's size, and ControlNet
    # fails in the other's pass.
    chosen = [n for n in chosen if n.real not in ("sd-webui-kohya-hiresfix", "sd-webui-fabric")]
    if not chosen:
        pytest.skip("no real neighbour is installed")
    overrides = {k: v for n in chosen for k, v in n.changed.get("override_settings", {}).items()}
    request = {**BASE, **AND_PERP, "batch_size": 2, "override_settings": overrides}
    theirs = {name: args for n in chosen for name, args in n.scripts.items()}
    before = host.make(BASE)
    alone = host.make({**request, "alwayson_scripts": theirs})
    both = [host.make({**request, "alwayson_scripts": {**theirs, "asyndm": {"args": arguments(None)}}}) for _ in "12"]
    assert [answer.status for answer in (alone, *both)] == [200] * 3
    assert both[0].pictures == both[1].pictures
    assert both[0].messages == []
    assert pictures.distance(both[0].pictures[0], alone.pictures[0]) > VISIBLE
    assert host.make(BASE).pictures == before.pictures


REGIONS = {
    "stand-in": ({"stand-in regional": (True, "columns", 0)}, BREAK),
    "stand-ins": ({"stand-in regional": (True, "columns", 0.3), "stand-in negative words": ("a house",)}, BREAK),
    "real": ({"regional prompter": _regional()}, BREAK),
    "real, latent": ({"regional prompter": _regional("Latent")}, BREAK),
    "real, mask": ({"regional prompter": _regional(tab="Mask")}, BREAK),
    "real with NegPiP": ({"regional prompter": _regional(), "negpip": (True,)}, BREAK_WITHOUT),
}


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM"])
@pytest.mark.parametrize("beside", REGIONS)
def test_a_target_of_any_region_is_that_regions(beside, sampler, host):
    """It used to be mixed with another region's words, or the whole picture's."""
    scripts, prompt = REGIONS[beside]
    theirs = {name: {"args": args} for name, args in scripts.items()}
    if not theirs.keys() <= set(host.get("/sdapi/v1/scripts")["txt2img"]):
        pytest.skip("it did not load in this WebUI")
    request = {**BASE, **prompt, "sampler_name": sampler, "batch_size": 2}

    def made(settings: dict | None) -> list[bytes]:
        ours = {} if settings is None else {"asyndm": {"args": arguments(settings)}}
        answer = host.make({**request, "alwayson_scripts": {**theirs, **ours}})
        assert answer.status == 200
        assert answer.messages == []
        return answer.pictures

    alone, still = made(None), made({"targets": "heart", "concavity": 0.0})
    # The infotexts differ: one names what was asked for.
    assert [pictures.pixels(a).tolist() for a in still] == [pictures.pixels(a).tolist() for a in alone]
    one, other, whole = made({"targets": "heart"}), made({"targets": "cat"}), made({"whole_picture": True})
    for a, b in itertools.combinations((alone, one, other, whole), 2):
        assert pictures.distance(a[0], b[0]) > VISIBLE


@pytest.mark.parametrize("targets", ["heart", ""])
@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_where_no_word_can_be_told_the_picture_is_made_without_us_and_one_message_says_so(timing, targets, host):
    theirs = {"stand-in regional": {"args": (True, "joined", 0)}}
    settings = {"targets": targets, "mask_timing": timing, "show_masks": True}
    request = {**BASE, **BREAK, "batch_size": 2}
    alone = host.make({**request, "alwayson_scripts": theirs})
    both = host.make({**request, "alwayson_scripts": {**theirs, "asyndm": {"args": arguments(settings)}}})
    assert [picture[:8] for picture in both.pictures] == [picture[:8] for picture in alone.pictures], "no sheet"
    assert all(map(pictures.same_pixels, both.pictures, alone.pictures))
    [message] = both.messages
    assert "no token maps could be read" in message
    assert message.endswith("The picture was made without AsynDM.")
    assert "AsynDM" not in both.infotext.partition("AsynDM messages")[0]


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("name", ["neutral prompt", "real neutral prompt"])
def test_a_question_while_a_picture_is_made_or_before_it_changes_no_picture(name, ours, host):
    """Neutral Prompt reads prompts in the host's place, and keeps what it read last."""
    neighbour = NEIGHBOURS[name]
    if neighbour.script not in host.get("/sdapi/v1/scripts")["txt2img"] or not _present(neighbour):
        pytest.skip(f"{neighbour.name} did not load in this WebUI")
    four = Four(host, neighbour)
    expected, answers, asked = four.make(True, ours), [], 0
    job = threading.Thread(target=lambda: answers.append(four.make(True, ours)))
    job.start()
    while job.is_alive():
        question = {"prompt": "a house AND_PERP a bird AND a fish", "targets": "bird, fish"}
        status, answer = host.call("/asyndm/v1/tokens", question)
        assert status == 200
        assert [target["found"] for target in answer["targets"]] == [True, True]
        assert "AND_PERP" not in [word["text"] for word in answer["words"]]
        asked += 1
    assert asked > 3
    assert answers[0].pictures == expected.pictures
    assert four.make(True, ours).pictures == expected.pictures, "the host keeps what the prompts become"


def _needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in REAL, reason=f"{name} is not installed")


@_needs(UPSCALE)
@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_every_tile_of_ultimate_upscale_is_a_picture_of_its_own(sampler, host, without):
    """Each is an img2img job on the same ``p``."""
    tiles, no_seams = (64, 64, 4, 8), (64, 0.5, 16)
    request = {
        **BASE,
        "sampler_name": sampler,
        "init_images": [in_base64(drawing())],
        "denoising_strength": 0.7,
        "steps": 8,
        "script_name": "ultimate sd upscale",
        "script_args": [None, *tiles, *no_seams, 1, True, 0, False, 4, 0, 1, 128, 128, 2.0],
    }

    def made(server: WebUI, settings: dict | None) -> list[bytes]:
        ours = {} if settings is None else {"asyndm": {"args": arguments(settings)}}
        answer = server.make({**request, "alwayson_scripts": ours}, "img2img")
        assert answer.status == 200, answer.info
        assert answer.messages == []
        assert pictures.size(answer.pictures[0]) == (128, 128)
        return answer.pictures

    def distance(one: list[bytes], other: list[bytes]) -> float:
        return pictures.distance(one[0], other[0])

    for server in (host, without):
        made(server, None)  # the host's VAE encoder draws random numbers that a job leaves
    alone, off, still = made(without, None), made(host, None), made(host, {"targets": "cat", "concavity": 0.0})
    both, again = made(host, {"targets": "cat"}), made(host, {"targets": "cat"})
    assert distance(off, alone) == 0
    assert distance(still, off) == 0
    assert distance(both, again) == 0
    assert distance(both, off) > VISIBLE
    assert distance(made(host, None), off) == 0


@_needs(SCHEDULER)
def test_what_the_agent_scheduler_queues_is_the_picture_that_was_asked_for(host):
    """It keeps the request, and sends it from a thread of its own."""
    scripts = {"asyndm": {"args": arguments({"targets": "cat", "concavity": 0.7})}}
    request = {**BASE, "alwayson_scripts": scripts}
    direct, off = host.make(request), host.make(BASE)
    tasks = [host.post("/agent-scheduler/v1/queue/txt2img", asked)["task_id"] for asked in (request, BASE)]
    results = [_result(host, task) for task in tasks]
    assert [result["success"] for result in results] == [True, True]
    for result, expected in zip(results, (direct, off), strict=True):
        [picture] = result["data"]
        made = b64decode(picture["image"].partition("base64,")[2])
        assert pictures.same_pixels(made, expected.pictures[0])
        assert ("AsynDM" in picture["infotext"]) == ("AsynDM" in expected.infotext)
    assert pictures.distance(direct.pictures[0], off.pictures[0]) > VISIBLE


@_needs(PRESETS)
def test_a_preset_of_config_presets_sets_every_setting(host, browser, shots):
    page = opened(browser, host, shots)
    try:
        page.page.locator("#config_preset_txt2img_dropdown input").fill("mine")
        page.page.locator("#config_preset_txt2img_dropdown input").press("Enter")
        page.page.wait_for_function("document.querySelector('#script_txt2img_asyndm_targets textarea').value")
        page.page.wait_for_timeout(700)
        assert page.values() == {"enabled": True, **SETTINGS}
    finally:
        page.page.close()


def _result(host: WebUI, task: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while True:
        result = host.get(f"/agent-scheduler/v1/task/{task}/results")
        if result["success"] or "failed" in result["message"] or time.monotonic() > end:
            return result
        time.sleep(0.2)
