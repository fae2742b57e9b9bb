"""The API: named settings, its refusals, the endpoints of the extension, and the examples of
docs/API.md.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

import pictures
import pytest
from family import HOST
from materials import INVERSION, INVERSION_VECTORS
from requests_table import BASE, DEFAULTS, FILLER, SMALL, Row, masked_area, plot, switched_on, with_arguments
from webui import ENVIRONMENT, REPOSITORY

pytestmark = pytest.mark.usefixtures("nothing_left")

REQUEST = {**BASE, **SMALL}
TOKENS, OF_THE_PAGE, SCHEMA = "/asyndm/v1/tokens", "/internal/asyndm-tokens", "/asyndm/v1/schema"


def named(request, **settings):
    return with_arguments(request, [settings])


def axes(server):
    """The labels of the host's X/Y/Z plot in txt2img."""
    return next(s for s in server.get("/sdapi/v1/script-info") if s["name"] == "x/y/z plot")["args"][0]["choices"]


# Named settings


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kind", ["txt2img", "img2img"])
def test_named_settings_are_the_list(kind, host, start_picture):
    settings = {"targets": "cat, dog:0.5", "concavity": 0.7, "curve": "exponential"}
    request = {**REQUEST, "init_images": [start_picture], "denoising_strength": 0.7} if kind == "img2img" else REQUEST
    host.make(request, kind)
    listed = host.make(switched_on(request, settings), kind)
    assert host.make(named(request, **settings), kind).pictures == listed.pictures
    if kind == "txt2img":
        full = {**DEFAULTS, **settings, "enabled": True}
        for title in ("AsynDM", "ASYNDM"):
            asked = {**request, "alwayson_scripts": {title: {"args": [full]}}}
            assert host.make(asked).pictures == listed.pictures


@pytest.mark.usefixtures("quiet")
def test_named_settings_that_are_off(host, reference):
    answer = host.make(named(REQUEST, targets="cat", enabled=False))
    assert (answer.pictures, answer.messages) == (reference(REQUEST).result().pictures, [])


@pytest.mark.usefixtures("quiet")
def test_a_tag_and_no_named_setting(host):
    tagged = {**REQUEST, "prompt": REQUEST["prompt"] + "<asyn:cat>"}
    plain = host.make(named(REQUEST, targets="cat"))
    assert pictures.same_pixels(host.make(named(tagged)).pictures[0], plain.pictures[0])


WRONG = [
    ({"concavty": 0.5}, "no setting 'concavty'; it has targets, concavity,"),
    ({"targets": 7}, "Targets must be text, not 7"),
    ({"targets": "cat:2"}, "the concavity 2 is not from 0 to 1"),
    ({"targets": "cat " * 2000}, "8000 characters"),
    ({"concavity": "0.5"}, "Concavity must be a number, not '0.5'"),
    ({"concavity": None}, "not None"),
    ({"concavity": True}, "not True"),
    ({"concavity": 1.01}, "Concavity must be from 0 to 1, not 1.01"),
    ({"concavity": float("nan")}, "not nan"),
    ({"concavity": 10**400}, "from 0 to 1, not 1000"),
    ({"curve": "cubic"}, "Curve must be one of quadratic"),
    ({"mask_timing": ["fresh"]}, "Mask timing must be text"),
    ({"threshold": -1}, "Mask threshold must be from 0 to 4"),
    ({"whole_picture": "true"}, "Whole picture must be true or false"),
    ({"second_pass": "half"}, "Second pass must be one of"),
    ({"enabled": "yes"}, "enabled, the first argument, must be true or false, not 'yes'"),
    ({"enabled": False, "concavity": 9}, "Concavity must be from"),
    ({"\ud83d": 1}, "no setting '\\ud83d'"),
    ({"targets": "cat \ud83d"}, "a text holds half a character"),
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("settings", "said"), WRONG, ids=lambda value: f"{value!r:.60}")
def test_wrong_named_settings_are_refused(settings, said, host):
    for kind in ("txt2img", "img2img"):
        answer = host.make(named(REQUEST, **settings), kind)
        assert answer.status == 422
        assert said in answer.info["detail"]
        assert answer.info["detail"].startswith("AsynDM: ")
        assert len(answer.info["detail"]) < 1000
        assert answer.seconds < 2


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "entry",
    [
        {"args": {"targets": "cat"}},
        {"args": "cat"},
        {"args": None},
        {"targets": "cat"},
        [{"targets": "cat"}],
        None,
        {"args": [{"targets": "cat"}, True]},
    ],
    ids=repr,
)
def test_settings_in_a_wrong_place_are_refused(entry, host):
    """The host would pass over some in silence, and break off over others."""
    status, answer = host.call("/sdapi/v1/txt2img", {**REQUEST, "alwayson_scripts": {"asyndm": entry}})
    assert status == 422
    assert "AsynDM takes" in answer["detail"]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("value", ["\ud83d", 2**64, float("nan"), [{"x": "\ud83d"}]], ids=lambda value: f"{value!r}")
def test_what_the_host_cannot_repeat_is_refused_before_the_picture(value, host):
    request = {**REQUEST, "alwayson_scripts": {"AsynDM": {"args": [True, "cat", value]}}}
    status, answer = host.call("/sdapi/v1/txt2img", request)
    assert status == 422
    assert answer["detail"].startswith("AsynDM: a ")


@pytest.mark.usefixtures("quiet")
def test_other_requests_pass_as_they_did(host, reference):
    for body in (b"", b"[]", b"null", b"7", b"{", b'{"alwayson_scripts": 7}', b'{"alwayson_scripts": {"x": {}}}'):
        ours, theirs = (server.call("/sdapi/v1/txt2img", body) for server in (host, reference.server))
        assert ours[0] == theirs[0], body
        if theirs[0] != 200:
            assert ours == theirs


def test_the_axes_of_a_plot_go_over_named_settings(host):
    request = plot(axes(host), named(REQUEST, targets="cat"), x=("[AsynDM] Concavity", "0.2, 0.9"))
    answer = host.make(request)
    for png, k in zip(answer.pictures[-2:], (0.2, 0.9), strict=True):
        assert pictures.same_pixels(png, host.make(named(REQUEST, targets="cat", concavity=k)).pictures[0])


# The schema


def test_the_schema(host):
    schema = host.get(SCHEMA)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    defaults = {name: setting["default"] for name, setting in schema["properties"].items()}
    assert defaults == {"enabled": True, **DEFAULTS}
    assert all(setting["description"] for setting in schema["properties"].values())
    assert host.make(named(REQUEST, **{**defaults, "targets": "cat"})).status == 200


# Tokens


def tokens(host, prompt, targets="", **more):
    return host.post(TOKENS, {"prompt": prompt, "targets": targets, **more})


def places(answer):
    return {
        target["text"]: [
            (where["part"], *((token["chunk"], token["index"]) for token in where["tokens"]))
            for where in target["occurrences"]
        ]
        for target in answer["targets"]
    }


INVERTED = [(0, *((0, 2 + n) for n in range(INVERSION_VECTORS)))]
CASES = {
    "plain": ("a cat and a (red heart:1.3)", "cat, red heart, zebra", {"cat": [(0, (0, 2))], "zebra": []}),
    "two": ("cat, cat", "cat", {"cat": [(0, (0, 1)), (0, (0, 3))]}),
    "the second": ("cat, cat", "cat#2", {"cat": [(0, (0, 3))]}),
    "AND": ("a cat AND the big cat :0.7", "cat", {"cat": [(0, (0, 2)), (1, (0, 3))]}),
    "editing": ("a [cat:big dog:0.5]", "cat, dog", {"cat": [(0, (0, 2))], "dog": [(0, (0, 3))]}),
    "alternation": ("a [cat|dog]", "cat, dog", {"cat": [(0, (0, 2))], "dog": [(0, (0, 2))]}),
    "BREAK": ("a cat BREAK a dog", "dog", {"dog": [(0, (1, 2))]}),
    "long": (f"{FILLER} cat", "cat", None),
    "an extra network": ("a <none:none:1>cat", "cat", {"cat": [(0, (0, 2))]}),
    "a comment": ("a # red\ncat", "cat, red", {"cat": [(0, (0, 2))], "red": []}),
    "an inversion": (f"a {INVERSION} cat", INVERSION, {INVERSION: INVERTED}),
    "nothing": ("", "cat", {"cat": []}),
    "escaped brackets": (r"dog \(cat\), red", r"dog \(cat\)", {r"dog \(cat\)": [(0, (0, 1), (0, 2), (0, 3), (0, 4))]}),
    "punctuation": ("k-on!, red", "k-on!", {"k-on!": [(0, (0, 1), (0, 2), (0, 3), (0, 4))]}),
    "a face": ("cat, :3, red", ":3", {":3": [(0, (0, 3), (0, 4))]}),
    "whole words": ("cat-like, cat_like cat's (cat)-like", "cat", {"cat": [(0, (0, 8)), (0, (0, 10))]}),
    "words behind an inversion": (f"a {INVERSION}, cat-like, cat", f'"{INVERSION}", cat', {"cat": [(0, (0, 10))]}),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", CASES)
def test_where_the_targets_stand(case, host):
    prompt, targets, expected = CASES[case]
    answer = tokens(host, prompt, targets)
    assert answer["error"] is None
    found = places(answer)
    if case == "long":
        ((part, (chunk, _)),) = found["cat"]
        assert (part, chunk) == (0, 1)
    else:
        assert {name: found[name] for name in expected} == expected
    assert all(target["found"] == bool(target["occurrences"]) for target in answer["targets"])


@pytest.mark.usefixtures("quiet")
def test_what_is_found_is_what_a_picture_finds(host):
    for prompt, targets, _ in CASES.values():
        answer = tokens(host, prompt, targets, steps=2)
        missing = {target["text"] for target in answer["targets"] if not target["found"]}
        said = " ".join(host.make(named({**REQUEST, "prompt": prompt, "steps": 2}, targets=targets)).messages)
        assert set(re.findall(r'"([^"#]+)', said.split(" not found")[0])) == missing


@pytest.mark.usefixtures("quiet")
def test_words_tags_and_errors(host):
    answer = tokens(host, "a (basketball:1.2), <asyn:basketball#1:0.5> <asyn:cat>", "cat")
    assert [word["text"] for word in answer["words"]] == ["a", "basketball"]
    assert [word["tokens"] for word in answer["words"]] == [1, 1]
    assert answer["tags"] == "basketball#1:0.5, cat"
    assert [(t["text"], t["occurrence"], t["concavity"], t["tagged"], t["found"]) for t in answer["targets"]] == [
        ("cat", None, None, False, False),
        ("basketball", 1, 0.5, True, True),
    ]
    answer = tokens(host, "a cat", "cat:2")
    assert (answer["targets"], len(answer["words"])) == ([], 2)
    assert "2 is not from 0 to 1" in answer["error"]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "not JSON"),
        (b"\xff", 422, "not JSON"),
        (b"[" * 30_000, 422, "not JSON"),
        (b"[]", 422, "must be an object"),
        ({}, 422, "prompt must be text, not None"),
        ({"prompt": 7}, 422, "prompt must be text, not 7"),
        ({"prompt": "cat", "targets": ["cat"]}, 422, "targets must be text"),
        ({"prompt": "cat", "target": "cat"}, 422, "unknown: 'target'"),
        ({"prompt": "cat", "steps": "20"}, 422, "steps must be a whole number"),
        ({"prompt": "cat", "steps": True}, 422, "steps must be a whole number"),
        ({"prompt": "cat", "steps": 10**9}, 422, "steps must be a whole number from 1 to 150"),
        ({"prompt": "cat", "styles": "x"}, 422, "styles must be a list"),
        ({"prompt": "cat \ud83d"}, 422, "half a character"),
        ({"prompt": "cat " * 2001}, 422, "8004 characters"),
        ({"prompt": "cat", "targets": "c" * 4001}, 422, "4001 characters"),
        ({"prompt": "[" * 201}, 422, "more than 200 brackets"),
        (b" " * 262_145, 413, "longer than 262144 bytes"),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_questions_that_are_refused(body, status, said, host):
    for path in (TOKENS, OF_THE_PAGE):
        answer = host.call(path, body)
        assert (answer[0], said in answer[1]["detail"]) == (status, True), answer


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "prompt",
    [
        *("cat " * 2000, "z" * 8000, "(" * 8000, "\\" * 8000, "AND " * 2000, "<asyn:cat>" * 800, "<" * 8000),
        *("# " * 4000, "🙂" * 8000),
        *("[" * 200, "[a|" * 66, "[(a|b):" * 33, "[a|b]" * 50, "[cat:dog:0.5] " * 30, "[" * 60 + "]" * 60),
    ],
    ids=lambda value: f"{value:.12} x {len(value)}",
)
def test_a_hostile_prompt_takes_its_time_at_most(prompt, host):
    start = time.monotonic()
    body = {"prompt": prompt, "targets": ", ".join(f"cat{n}" for n in range(64)), "steps": 150}
    status, answer = host.call(TOKENS, body)
    assert status == 200 or "seconds" in answer["detail"] or "nested" in answer["detail"], answer
    assert time.monotonic() - start < 20


@pytest.mark.usefixtures("quiet")
def test_while_a_picture_is_made(host):
    request = named({**BASE, "steps": 30}, targets="cat")
    expected, answers = host.make(request), []
    job = threading.Thread(target=lambda: answers.append(host.make(request)))
    job.start()
    asked, slowest = 0, 0.0
    while job.is_alive():
        start = time.monotonic()
        assert tokens(host, BASE["prompt"], "cat")["targets"][0]["found"]
        asked, slowest = asked + 1, max(slowest, time.monotonic() - start)
        time.sleep(0.05)
    assert asked > 3
    assert slowest < 5
    assert answers[0].pictures == expected.pictures


@pytest.mark.usefixtures("quiet")
def test_without_a_model(host):
    host.post("/asyndm-probe/without-model", {"without": True})
    try:
        status, answer = host.call(TOKENS, {"prompt": "a cat", "targets": "cat"})
    finally:
        host.post("/asyndm-probe/without-model", {"without": False})
    assert status == 503
    assert "no model is loaded" in answer["detail"]
    assert tokens(host, "a cat", "cat")["targets"][0]["found"]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("checkpoint", ["sd2-v", "sdxl"])
def test_other_text_encoders(checkpoint, host):
    if reason := HOST.lacking(Row("", checkpoint=checkpoint)):
        pytest.skip(reason)
    options = {"sd_model_checkpoint": f"tiny-{checkpoint}"}
    keep = {"override_settings": options, "override_settings_restore_afterwards": False}
    assert host.make({**REQUEST, **keep, "steps": 1}).status == 200
    try:
        assert places(tokens(host, "a cat", "cat")) == {"cat": [(0, (0, 2))]}
    finally:
        host.make({**REQUEST, **keep, "steps": 1, "override_settings": {"sd_model_checkpoint": "tiny-sd1"}})


# Passwords


def status_of(server, path, body=None, headers=None, opener=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json", **(headers or {})})
    opener = opener or urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def logged_in(server, user, password):
    cookies = urllib.request.HTTPCookieProcessor(CookieJar())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
    form = urllib.parse.urlencode({"username": user, "password": password}).encode()
    opener.open(urllib.request.Request(f"{server.url}/login", form), timeout=60).close()
    return opener


def basic(user):
    return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


QUESTION = {"prompt": "a cat", "targets": "cat"}


def test_the_api_alone_with_a_password(alone):
    """Without a page the plot's axes are there too, as in every list that the host makes at its
    start."""
    with alone("api-alone", "--nowebui", "--api-auth", "user:secret") as server:
        for path, body in ((TOKENS, QUESTION), (SCHEMA, None), ("/sdapi/v1/options", None)):
            assert status_of(server, path, body) == 401
            assert status_of(server, path, body, basic("user:wrong")) == 401
            assert status_of(server, path, body, basic("user:secret")) == 200
        assert status_of(server, OF_THE_PAGE, QUESTION, basic("user:secret")) == 404
        assert status_of(server, "/sdapi/v1/txt2img", named(REQUEST, wrong=1)) == 401
        assert server.make(named(REQUEST, wrong=1)).status == 422
        choices = axes(server)
        assert choices.count("[AsynDM] Concavity") == 1
        request = plot(choices, named(REQUEST, targets="cat"), x=("[AsynDM] Concavity", "0.2, 0.9"))
        assert ["concavity: 0.2" in text for text in server.make(request).info["infotexts"][-2:]] == [True, False]
        assert "asyndm_lib" not in server.log()  # no traceback of ours


def test_the_page_alone_with_a_password(alone):
    with alone("page-alone", "--gradio-auth", "user:secret", api=False) as server:
        # Forge has no model before a picture is made, which needs the API.
        let_in = 503 if HOST.lazy else 200
        for path in (TOKENS, OF_THE_PAGE):
            assert status_of(server, path, QUESTION) == 401
            assert status_of(server, path, QUESTION, basic("user:secret")) == 401
            person, end = logged_in(server, "user", "secret"), time.monotonic() + 60
            while (status := status_of(server, path, QUESTION, opener=person)) != let_in and time.monotonic() < end:
                time.sleep(1)  # the model may still be being loaded
            assert status == let_in
        assert status_of(server, SCHEMA) == 404
        assert "asyndm_lib" not in server.log()  # no traceback of ours


def test_both_with_passwords(alone):
    with alone("both", "--gradio-auth", "user:secret", "--api-auth", "program:hidden") as server:
        person, program = logged_in(server, "user", "secret"), basic("program:hidden")
        assert status_of(server, TOKENS, QUESTION, opener=person) == 401
        assert status_of(server, TOKENS, QUESTION, program) == 200
        assert status_of(server, SCHEMA) == 401
        assert status_of(server, SCHEMA, headers=program) == 200
        assert status_of(server, OF_THE_PAGE, QUESTION, program) == 401
        assert status_of(server, OF_THE_PAGE, QUESTION, opener=person) == 200


# docs/API.md


def example(language):
    return re.findall(rf"^```{language}\n(.*?)^```", (REPOSITORY / "docs" / "API.md").read_text("utf-8"), re.M | re.S)


def ran(command, folder):
    environment = {**ENVIRONMENT, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_here(code, host):
    assert "http://127.0.0.1:7860" in code
    here = code.replace("http://127.0.0.1:7860", host.url)
    return here.replace('"steps": 20', '"width": 64, "height": 64, "steps": 4')


@pytest.mark.usefixtures("quiet")
def test_the_pages_curl(host, tmp_path):
    (code,) = example("bash")
    ran(["bash", "-ec", as_here(code, host)], tmp_path)
    answer = json.loads((tmp_path / "answer.json").read_text("utf-8"))
    info = json.loads(answer["info"])
    assert 'AsynDM targets: "cat, sandwich:0.5", AsynDM concavity: 0.7' in info["infotexts"][0]


@pytest.mark.usefixtures("quiet")
def test_the_pages_python(host, tmp_path):
    code, *_ = example("python")
    said = ran([sys.executable, "-c", as_here(code, host)], tmp_path)
    assert said.splitlines() == ["cat is in the prompt", "zebra is not in the prompt"]
    text = pictures.infotext((tmp_path / "cat.png").read_bytes())
    assert "AsynDM targets: cat, AsynDM curve: exponential" in text


@pytest.mark.usefixtures("quiet")
def test_the_pages_mask(host, tmp_path):
    """Goes on from the page's first Python, as it says."""
    masked_area().save(tmp_path / "mask.png")
    first, mask, _ = example("python")
    ran([sys.executable, "-c", as_here(f"{first}\n{mask}", host)], tmp_path)
    text = pictures.infotext((tmp_path / "painted.png").read_bytes())
    assert "AsynDM region: painted, AsynDM mask: " in text
    assert "AsynDM targets" not in text


@pytest.mark.usefixtures("quiet")
def test_the_pages_plot(host, tmp_path):
    """Goes on from the page's first Python, as it says."""
    first, _, plotting = example("python")
    ran([sys.executable, "-c", as_here(f"{first}\n{plotting}", host)], tmp_path)
    (plot_script,) = (s for s in host.get("/sdapi/v1/script-info") if s["name"] == "x/y/z plot" and not s["is_img2img"])
    x, y = ("[AsynDM] Targets", '"cat, sandwich:0.3", cat'), ("[AsynDM] Curve", "quadratic, exponential")
    same = {"prompt": "a cat and a sandwich", "seed": 1, "width": 64, "height": 64, "steps": 4}
    asked = plot(plot_script["args"][0]["choices"], same, x=x, y=y)
    asked["script_args"][9] = True  # with a legend, as at first
    grid = (tmp_path / "grid.png").read_bytes()
    assert pictures.same_pixels(grid, host.make(asked).pictures[0])
    assert min(pictures.size(grid)) > 2 * 64
