"""Other extensions beside this one on Forge, Forge Neo and Forge Classic: neither loses its effect.

Each way of hooking into the host is there as a stand-in (``neighbours/forge``). The real extensions
join them where ``ASYNDM_WEBUI_EXTENSIONS`` names their folder.
"""

from __future__ import annotations

from pathlib import Path

import pictures
import pytest
from family import CLASSIC, FORGE, HOST, NEO
from forge_rows import CONTROL_UNIT
from forge_rows import EXTENSIONS as BUILT_IN
from materials import CONTROL, LORA
from requests_table import BASE, drawing, in_base64, switched_on
from sampler_rows import HIRES
from test_host_neighbours import EXTENSIONS, FOLDER, STAND_INS, VISIBLE, Four, Neighbour, _options, _present, loaded
from webui import PROBE, REPOSITORY, WebUI

pytestmark = [
    pytest.mark.usefixtures("nothing_left", "quiet"),
    pytest.mark.skipif(HOST not in (FORGE, NEO, CLASSIC), reason=f"{HOST.name} has other places to hook into"),
]

LBW = (f"{LORA}:1,0,1,0,1,0,1,0,1,0,1,0,1,0,1,0,1", True)
MODIFIER = (True, 5.0, "anisotropic", 3.0, "reinhard", 100.0, 0.0, "subtract", 0.0, 0.5)
LARGE = {"width": 128, "height": 128}
COUPLED = {"prompt": "a cat and a red heart\na dog", "width": 128}
COUPLED_AND = {**COUPLED, "prompt": "a cat and a red heart\na dog AND a red heart:0.8"}
DAEMON = (True, True, False, "both", 0.0, 1.0, 0.5, 0.5, 1, 0, 0, 0, True)
NEIGHBOURS = {
    **{
        f"guidance, {kind}": Neighbour("stand-in guidance", (True, kind))
        for kind in ("perturbed", "degraded", "windows", "another prompt", "before", "attention")
    },
    **{
        f"told, {kind}": Neighbour("stand-in told", (True, kind))
        for kind in ("in place", "anew", "modifier", "before", "wrapper")
    },
    "couple": Neighbour("stand-in couple", request=COUPLED),
    "couple and AND": Neighbour("stand-in couple", request=COUPLED_AND),
    "wrapper, apart": Neighbour("stand-in wrapper", (True, "apart")),
    "wrapper, tiles": Neighbour("stand-in wrapper", (True, "tiles")),
    "layers, conditioning": Neighbour("stand-in layers", (True, False)),
    "real PAG": Neighbour(
        "perturbed-attention guidance",
        (True, 3.0, 0.0, "full", 0.0, "middle", 0, ""),
        real="sd-perturbed-attention",
    ),
    "real SEG": Neighbour(
        "smoothed energy guidance",
        (True, 15.0, 0.0, "full", 1.0, "middle", 0, "m0,u0-2"),
        real="sd-perturbed-attention",
    ),
    "real SWG": Neighbour(
        "sliding window guidance",
        (True, 5.0, 64, 64, 16, False, 7.0, 5.0, -1.0, 0.5),
        real="sd-perturbed-attention",
    ),
    "real Detail Daemon": Neighbour("detail daemon", DAEMON, real="sd-webui-detail-daemon"),
    "real Forge Couple": Neighbour(
        "forge couple", (True, False, "Basic", "", "Horizontal", "None", 0.5), COUPLED, real="sd-forge-couple"
    ),
}
_BUILT_IN_REQUESTS = {
    "FreeU": _options(sd_model_checkpoint="tiny-sd1-wide"),
    "SAG": LARGE,
    "MultiDiffusion": LARGE,
    "StyleAlign": {"batch_size": 2},
    "Dynamic Thresholding": {"cfg_scale": 9},
    "RescaleCFG": {"cfg_scale": 30},
}
NEIGHBOURS |= {
    f"built-in {name}": Neighbour(*BUILT_IN[name], request=_BUILT_IN_REQUESTS.get(name, {}))
    for name in BUILT_IN
    if name != "Never OOM"  # which changes no picture
}
if HOST is FORGE:  # the others take no other number of channels
    NEIGHBOURS["wrapper, relit"] = Neighbour("stand-in wrapper", (True, "relit"))
    RELIT = (True, "iclight_sd15_fc", in_base64(drawing()), None, False)
    NEIGHBOURS["real IC Light"] = Neighbour("ic light", RELIT, real="sd-forge-ic-light")
if HOST is not NEO:  # which has LoRAs of another form
    NEIGHBOURS["real LoRA Block Weight"] = Neighbour(
        "lora block weight",
        LBW,
        {"prompt": f"a cat and a dog <lora:{LORA}:1:lbw={LORA}:stop=3>"},
        real="sd-webui-lora-block-weight",
    )
NEIGHBOURS["built-in LatentModifier"] = Neighbour("latentmodifier integrated", MODIFIER)
BY_THE_HOSTS_LEVEL = ("built-in ControlNet", "built-in LatentModifier", "built-in RescaleCFG")
"""Those that are told the host's own noise level of a step, by which they go."""
VARIANTS = {
    "Euler": {},
    "DDIM": {"sampler_name": "DDIM"},
    "batch of 2": {"batch_size": 2},
    "AND": {"prompt": "a cat and a dog AND a red heart:0.8"},
    "static": {},
}


def _param(name, *values):
    neighbour = NEIGHBOURS[name]
    absent = pytest.mark.skipif(not _present(neighbour), reason=f"{neighbour.real} is not installed")
    return pytest.param(neighbour, *values, marks=absent, id=", ".join((name, *values)))


CASES = [
    _param(name, variant)
    for name, neighbour in NEIGHBOURS.items()
    for variant in VARIANTS
    if variant != "AND" or "prompt" not in neighbour.request
    if (name, variant) != ("built-in StyleAlign", "AND")  # it fails by itself
]
REAL = {n.real for n in NEIGHBOURS.values() if n.real and _present(n)}


@pytest.fixture(scope="module")
def host(folder):
    """A WebUI with all of them."""
    if "sd-forge-ic-light" in REAL:
        _make_relighting_models(folder / "models" / "ic-light")
    beside = {"stand_ins": STAND_INS / "forge", **{name: EXTENSIONS / name for name in REAL}}
    server = WebUI(Path(FOLDER), folder / "neighbours", {"asyndm": REPOSITORY, "asyndm_probe": PROBE, **beside})
    try:
        server.wait()
        models = server.get("/controlnet/model_list")["model_list"]
        CONTROL_UNIT["model"] = next(name for name in models if name.startswith(CONTROL))
        server.make(BASE)
        yield server
    finally:
        server.stop()


def _make_relighting_models(folder):
    """What IC-Light's models add to the first layer of tiny-sd1: 4 or 8 more channels."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    for name, channels in {"fc": 8, "fbc": 12}.items():
        more = torch.randn(320, channels, 3, 3, generator=torch.Generator().manual_seed(1)) * 0.05
        save_file({"input_blocks.0.0.weight": more}, folder / f"iclight_sd15_{name}.safetensors")


@pytest.mark.parametrize(("neighbour", "variant"), CASES)
def test_both_effects_show(neighbour, variant, host):
    four = Four(host, neighbour, variant, variants=VARIANTS)
    neither, ours, theirs = four.once(False, False), four.once(False, True), four.make(True, False)
    both, again, after = four.make(True, True), four.make(True, True), four.make(False, False)

    assert both.pictures == again.pictures, "the same request made another picture"
    assert after.pictures == neither.pictures, "the host is not as it was"
    to_theirs, to_ours, alone = four.distance(both, theirs), four.distance(both, ours), four.distance(theirs, neither)
    print(f"both to theirs: {to_theirs}, to ours: {to_ours}, theirs alone: {alone}")
    assert min(four.distance(ours, neither), alone) > VISIBLE, "nothing is proved without an effect"
    assert min(to_theirs, to_ours) > VISIBLE


@pytest.mark.parametrize("neighbour", [_param(name) for name in NEIGHBOURS])
def test_where_nothing_lags_the_neighbour_alone_is_left(neighbour, host):
    alone = Four(host, neighbour).make(True, False)
    still = Four(host, neighbour, settings={"targets": "cat", "concavity": 0}).make(True, True)
    assert pictures.same_pixels(still.pictures[0], alone.pictures[0])


SLOWER = {"Euler": {}, "DDIM": {"sampler_name": "DDIM"}, "batch of 2": {"batch_size": 2}}


SLOWED = [_param(name, variant) for name in NEIGHBOURS if name not in BY_THE_HOSTS_LEVEL for variant in SLOWER]


@pytest.mark.parametrize(("neighbour", "variant"), SLOWED)
def test_with_all_pixels_on_one_clock_it_acts_as_on_the_slower_schedule(neighbour, variant, host):
    """The probe gives the host's own sampler that schedule."""
    if not loaded(host, neighbour):
        pytest.skip(f"{neighbour.name} did not load in this WebUI")
    scripts = {neighbour.script: {"args": neighbour.on}}
    # With these DDIM's slower timesteps are whole numbers, as the host needs them.
    request = {**BASE, **neighbour.request, **SLOWER[variant], "steps": 5}
    usual = host.make({**request, "alwayson_scripts": scripts})
    host.post("/asyndm-probe/slow", {"concavity": 0.6})
    try:
        alone, expected = host.make(request), host.make({**request, "alwayson_scripts": scripts})
    finally:
        host.post("/asyndm-probe/slow", {"concavity": 0.0})
    settings = {"whole_picture": True, "concavity": 0.6}
    answer = host.make(switched_on({**request, "alwayson_scripts": scripts}, settings))

    assert answer.messages == []
    for own, slower, fast, without in zip(
        answer.pictures, expected.pictures, usual.pictures, alone.pictures, strict=True
    ):
        near = pictures.distance(own, slower)
        far = min(pictures.distance(fast, slower), pictures.distance(without, slower))
        print(f"to the host on the slower schedule: {near}, to it with one of the two: {far}")
        assert near < 0.02 < 0.3 < far


UNMATCHED = {
    "strange": Neighbour("stand-in guidance", (True, "strange")),
    "strange tiles": Neighbour("stand-in wrapper", (True, "strange")),
    "layers": Neighbour("stand-in layers", (True, True)),
}
TARGETS = {"targets": "cat"}


@pytest.mark.parametrize(
    ("neighbour", "variant", "settings"),
    [
        *(("strange", variant, TARGETS) for variant in (*SLOWER, "hires fix")),
        *(("strange tiles", "Euler", settings) for settings in ({"whole_picture": True}, {}, TARGETS)),
        *((("layers", "Euler", TARGETS),) if HOST is not NEO else ()),  # which exchanges no modules of a loaded model
    ],
    ids=repr,
)
def test_what_cannot_be_matched_is_said_once_and_the_picture_is_the_hosts(neighbour, variant, settings, host):
    neighbour = UNMATCHED[neighbour]
    if not loaded(host, neighbour):
        pytest.skip(f"{neighbour.name} did not load in this WebUI")
    scripts = {neighbour.script: {"args": neighbour.on}}
    request = {**BASE, **SLOWER.get(variant, HIRES), "alwayson_scripts": scripts}
    alone, on = host.make(request), host.make(switched_on(request, {**settings, "show_masks": True}))
    assert on.status == 200, on.info
    assert on.pictures == alone.pictures
    assert len(on.messages) == 1
    assert "AsynDM" not in on.infotext
