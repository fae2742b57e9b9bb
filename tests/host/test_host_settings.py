"""The Settings page, the presets, the controls' names and explanations, and what "Reload UI"
leaves."""

from __future__ import annotations

import json
from base64 import b64encode

import pictures
import pytest
from family import HOST
from requests_table import BASE, DEFAULTS, SMALL, switched_on, with_arguments
from webui_page import opened

TABS = ("txt2img", "img2img")
REQUEST = {**BASE, **SMALL}
OWN = {"concavity": 0.8, "curve": "exponential", "mask_timing": "fresh", "threshold": 2.0, "second_pass": "off"}
PRESETS = {
    "paper": [0.5, "quadratic", "lagged", 1.0, False],
    "gentle": [0.3, "quadratic", "lagged", 1.0, False],
    "strong": [0.7, "quadratic", "fresh", 1.0, False],
    "whole_picture": [0.5, "quadratic", "lagged", 1.0, True],
}
PRESET = ("concavity", "curve", "mask_timing", "threshold", "whole_picture")


SIMPLE = {name: value for name, value in DEFAULTS.items() if name != "mask"}
"""The settings whose control is not a canvas."""


def components(server) -> dict[str, dict]:
    """The properties of the page's components that are ours, by elem_id."""
    found = {}
    for component in server.get("/config")["components"]:
        elem_id = component["props"].get("elem_id") or ""
        if "asyndm" in elem_id:
            assert elem_id not in found, f"{elem_id} twice"
            found[elem_id] = {"id": component["id"], "type": component["type"], **component["props"]}
    return found


@pytest.fixture(scope="module")
def ours(host):
    return components(host)


def controls(found, tab="txt2img"):
    return {name: found[f"script_{tab}_asyndm_{name}"]["value"] for name in SIMPLE}


def test_the_controls_ids(ours):
    """Other programs keep presets under these ids: none may ever change."""
    for tab in TABS:
        for name in ("enabled", *DEFAULTS, *(f"preset_{name}" for name in PRESETS)):
            assert f"script_{tab}_asyndm_{name}" in ours


@pytest.mark.parametrize("tab", TABS)
def test_every_control_is_explained(tab, ours):
    for name in SIMPLE:
        assert ours[f"script_{tab}_asyndm_{name}"]["info"]
    for name in ("blank", "last"):
        assert ours[f"script_{tab}_asyndm_mask_{name}"]["webui_tooltip"]
    for name in PRESETS:
        assert ours[f"script_{tab}_asyndm_preset_{name}"]["webui_tooltip"]


def test_the_settings_page(host, ours):
    # Not by the API: Forge's tells only of options that were there before any extension's.
    options = json.loads((host.folder / "config.json").read_text("utf-8"))
    own = {name: value for name, value in SIMPLE.items() if name != "targets"}
    assert {f"asyndm_default_{name}": value for name, value in own.items()}.items() <= options.items()
    assert options["asyndm_hotkey"].startswith("Alt+")
    for name in own:
        assert ours[f"setting_asyndm_default_{name}"]["value"] == own[name]
    assert ours["setting_asyndm_hotkey"]["value"] == options["asyndm_hotkey"]
    assert "keeps only whether the accordion is on" in ours["setting_asyndm_defaults"]["value"]
    assert ours["settings_asyndm"]


@pytest.mark.parametrize("tab", TABS)
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_the_controls(name, tab, host, ours):
    button = ours[f"script_{tab}_asyndm_preset_{name}"]["id"]
    events = host.get("/config")["dependencies"]
    (number,) = (n for n, event in enumerate(events) if _triggers(event, button))
    set_by_it = [ours[f"script_{tab}_asyndm_{c}"]["id"] for c in PRESET]
    assert events[number]["outputs"] == set_by_it
    answer = host.post("/run/predict", {"fn_index": number, "data": [], "session_hash": "test"})
    assert answer["data"] == PRESETS[name]


def _triggers(event, component) -> bool:
    return any(component in (target if isinstance(target, list) else [target]) for target in event["targets"])


def test_png_info_tells_all(host):
    # At so low a threshold something is slowed in every host.
    settings = {**DEFAULTS, **OWN, "targets": "cat, dog:0.9", "threshold": 0.5}
    answer = host.make(switched_on(REQUEST, settings))
    found = host.post("/sdapi/v1/png-info", {"image": b64encode(answer.pictures[0]).decode()})["parameters"]
    told = {key: value for key, value in found.items() if key.startswith("AsynDM")}
    assert told.pop("AsynDM slowed").endswith("of 6 steps")
    assert told == {
        "AsynDM targets": "cat, dog:0.9",
        "AsynDM concavity": "0.8",
        "AsynDM curve": "exponential",
        "AsynDM mask timing": "fresh",
        "AsynDM mask threshold": "0.5",
        "AsynDM second pass": "off",
    }


def test_an_infotext_of_version_0_1_0(host):
    """The entries have their old names, and the picture is made again."""
    entries = "AsynDM targets: cat, AsynDM concavity: 0.35, AsynDM curve: piecewise linear, AsynDM mask timing: fresh"
    bare = host.make(REQUEST).infotext
    text = bare.replace(", Version: ", f", {entries}, AsynDM mask threshold: 1.25, Version: ")
    settings = {"concavity": 0.35, "curve": "piecewise linear", "mask_timing": "fresh", "threshold": 1.25}
    expected = host.make(switched_on(REQUEST, {"targets": "cat", **settings}))
    assert host.make({"infotext": text}).pictures == expected.pictures


@pytest.fixture(scope="module")
def reloaded(alone, tmp_path_factory):
    """A WebUI with a person's own defaults and a style, after "Reload UI"."""
    styles = tmp_path_factory.mktemp("styles") / "styles.csv"
    styles.write_text('name,prompt,negative_prompt\nmarked,"{prompt}, <asyn:dog>",\n')
    with alone("own-defaults", "--styles-file", str(styles)) as server:
        impossible = {"asyndm_default_second_concavity": 7}
        server.post("/sdapi/v1/options", {**{f"asyndm_default_{k}": v for k, v in OWN.items()}, **impossible})
        server.post("/asyndm-probe/reload")
        server.wait_for("/sdapi/v1/options", starts=2)
        yield server


def test_ones_own_defaults_are_what_the_controls_begin_with(reloaded):
    for tab in TABS:
        assert controls(components(reloaded), tab) == {**SIMPLE, **OWN}


def test_ones_own_defaults_are_not_the_apis(reloaded, host):
    """A request with named settings means the same on every machine."""
    answer = reloaded.make(with_arguments(REQUEST, [{"targets": "cat"}]))
    assert answer.pictures == host.make(switched_on(REQUEST)).pictures
    assert reloaded.get("/asyndm/v1/schema") == host.get("/asyndm/v1/schema")


def test_an_infotext_is_read_by_the_models_defaults(reloaded, host):
    first = host.make(switched_on(REQUEST))
    assert reloaded.make({"infotext": first.infotext}).pictures == first.pictures


def test_reload_ui_leaves_every_axis_once(reloaded):
    for script in reloaded.get("/sdapi/v1/script-info"):
        if script["name"] == "x/y/z plot":
            choices = script["args"][0]["choices"]
            assert choices.count("[AsynDM] Concavity") == 1
            assert len([label for label in choices if label.startswith("[AsynDM] ")]) == len(SIMPLE)


def test_reload_ui_leaves_the_endpoints(reloaded):
    question = {"prompt": "a cat", "targets": "cat"}
    for path in ("/asyndm/v1/tokens", "/internal/asyndm-tokens"):
        assert reloaded.post(path, question)["targets"][0]["found"]
    status, answer = reloaded.call("/sdapi/v1/txt2img", with_arguments(REQUEST, [{"wrong": 1}]))
    assert (status, answer["detail"].count("'wrong'")) == (422, 1)


def test_a_style_may_name_targets(reloaded):
    styled = reloaded.make(with_arguments({**REQUEST, "styles": ["marked"]}, [{}]))
    typed = {**REQUEST, "prompt": f"{REQUEST['prompt']}, <asyn:dog>"}
    assert styled.messages == []
    assert pictures.same_pixels(styled.pictures[0], reloaded.make(with_arguments(typed, [{}])).pictures[0])
    question = {"prompt": "a cat and a dog", "styles": ["marked"]}
    answer = reloaded.post("/asyndm/v1/tokens", question)
    (target,) = answer["targets"]
    assert (target["text"], target["tagged"], target["found"]) == ("dog", True, True)


def test_the_page_tells_of_the_targets_of_chosen_styles(reloaded, browser, shots):
    own = opened(browser, reloaded, shots)
    own.page.locator("#txt2img_prompt textarea").fill("a cat and a dog")
    own.open()
    status = "document.querySelector('#script_txt2img_asyndm_words .asyndm-status').innerText"
    own.page.wait_for_function(f"{status}.includes('No targets named')")
    own.page.locator("#txt2img_styles input").click()
    own.page.locator("ul.options li", has_text="marked").click()
    own.page.wait_for_function(f"""{status}.includes('"dog" → token 5')""")
    own.page.close()


@pytest.mark.skipif("own defaults" in HOST.lacks, reason=HOST.lacks.get("own defaults", ""))
def test_the_hosts_own_defaults_keep_whether_it_is_on(reloaded, browser, shots):
    """And nothing else, as the page of our settings says: what they hold counts for the rest."""
    own = opened(browser, reloaded, shots)
    own.open()
    own.element("concavity", inside="input[type=number]").fill("0.9")
    own.page.keyboard.press("Tab")
    own.page.locator("#tabs > .tab-nav button", has_text="Settings").click()
    own.page.locator("#settings > .tab-nav button", has_text="Defaults").click()
    own.page.locator("#ui_defaults_view").click()
    listed = own.page.locator("td", has_text="asyndm.py")
    listed.first.wait_for()
    assert listed.all_inner_texts() == ["customscript/asyndm.py/txt2img/AsynDM/value"]
    own.shot("defaults")
    own.page.locator("#ui_defaults_apply").click()
    own.page.get_by_text("Wrote ").wait_for()
    own.page.close()

    starts = reloaded.log().count("Startup time: ")
    reloaded.post("/asyndm-probe/reload")
    reloaded.wait_for("/sdapi/v1/options", starts=starts + 1)
    own = opened(browser, reloaded, shots)
    found = own.values()
    assert found == {"enabled": True, **{name: value for name, value in {**DEFAULTS, **OWN}.items() if name in found}}
    assert not own.values("img2img")["enabled"]
    own.page.locator("#txt2img_prompt textarea").fill("a cat")
    own.element("targets", inside="textarea").fill("cat")
    own.page.evaluate("window.scrollTo(0, 0)")
    own.generate()
    assert "AsynDM targets: cat, AsynDM concavity: 0.8" in own.infotext()
    own.page.close()
