"""Prompt files, pictures in a folder, foreign scores, and a WebUI's API, here a stand-in that keeps
the requests."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from asyndm_lib import cli
from asyndm_lib.errors import AsynDMError
from asyndm_lib.evaluation import command, gallery, geneval, prompt_files, runner, scorers
from asyndm_lib.evaluation import webui as webui_module
from asyndm_lib.evaluation.gallery import Gallery
from asyndm_lib.evaluation.methods import DM, FRESH, Method, Way
from asyndm_lib.evaluation.prompts import NoPicture, Prompt
from asyndm_lib.evaluation.scorers import Scorer
from asyndm_lib.evaluation.webui import WebUI
from asyndm_lib.settings.settings import Settings

WAY = Way("x", "DDIM", "automatic", 7, 5.0, 1.0)
PROMPT = Prompt("a cat and a dog", "cat:0.7, dog:0.3")


# Prompt files


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_the_authors_json(tmp_path):
    texts = ["a cat eating a sandwich", "An emoji of a panda wearing a red hat, and green pants.", "a dog and a dog"]
    content = {
        "item_idx": {texts[0]: [1, 4], texts[1]: [4, 8, 11], texts[2]: [4]},
        "item_k": {texts[0]: [0.7, 0.7], texts[1]: [0.5, 0.5, 0.3], texts[2]: [0.3]},
    }
    assert prompt_files.read(write(tmp_path, "item.json", content)) == [
        Prompt(texts[0], "cat:0.7, sandwich:0.7"),
        Prompt(texts[1], "panda:0.5, hat:0.5, pants:0.3"),
        Prompt(texts[2], "dog#2:0.3"),
    ]
    del content["item_k"]
    assert prompt_files.read(write(tmp_path, "item.json", content))[0].targets == "cat, sandwich"


def test_an_entry_that_does_not_fit_costs_no_other(tmp_path):
    brain = "A cross-section view of a brain."
    content = {
        "item_idx": {"a cat ": [1], brain: [6], "a dog": [1], "a cow": 1, "a hen": [1], "a fox": [1], "a bee": [1]},
        "item_k": {brain: [0.5], "a dog": [0.5, 0.5], "a hen": ["x"], "a fox": [7], "a bee": [0.5]},
    }
    said = []
    read = prompt_files.read(write(tmp_path, "item.json", content), said.append)
    assert read == [Prompt("a cat ", "cat"), Prompt("a bee", "bee:0.5")]  # the blank at the end too
    reasons = ["no word number 6", "not equally long", "must hold lists", "'x' is not a number", "not from 0 to 1"]
    assert len(said) == len(reasons)
    for line, reason, name in zip(said, reasons, (brain, "a dog", "a cow", "a hen", "a fox"), strict=True):
        assert line.startswith(f"skipped in item.json, {name!r}: ")
        assert reason in line


def test_a_list_and_plain_text(tmp_path):
    assert prompt_files.read(write(tmp_path, "a.json", ["a cat", "a dog"])) == [
        Prompt("a cat", ""),
        Prompt("a dog", ""),
    ]
    text = "a cat and a dog\tcat, dog:0.3\n\n  a bird \n"
    assert prompt_files.read(write(tmp_path, "a.txt", text)) == [
        Prompt("a cat and a dog", "cat, dog:0.3"),
        Prompt("a bird", ""),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "{", "is no JSON"),
        ("a.json", "[" * 10**6, "is no JSON"),
        ("a.json", {"prompts": []}, "neither a list of prompts nor the object item_idx"),
        ("a.json", {"item_idx": {"a cat": [5]}}, "there is no word number 5"),
        ("a.json", {"item_idx": {"a cat": [1]}, "item_k": {"a cat": [0.5, 0.5]}}, "not equally long"),
        ("a.json", {"item_idx": {"a cat": [1]}, "item_k": {"a cat": [7]}}, "is not from 0 to 1"),
        ("a.txt", "a cat\tcat:x", "is not a number"),
        ("a.json", {"item_idx": {"a cat": [1]}, "item_k": 3}, "neither a list of prompts nor the object item_idx"),
        ("a.txt", "\n", "holds no prompts"),
    ],
)
def test_bad_prompt_files_are_named(tmp_path, name, content, said):
    with pytest.raises(AsynDMError, match=said):
        prompt_files.read(write(tmp_path, name, content))


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert cli.main(["evaluate", "--prompts", str(tmp_path / "no.txt")]) == 2
    assert "cannot be read" in capsys.readouterr().err


# The WebUI


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        answers = {
            "/sdapi/v1/scripts": {"txt2img": self.server.scripts, "img2img": []},
            "/sdapi/v1/samplers": [{"name": name} for name in ("DDIM", "Euler a", "Euler A SGMUniform")],
            "/sdapi/v1/schedulers": self.server.schedules,
            "/sdapi/v1/options": {"sd_model_checkpoint": self.server.model, "sd_vae": "None", "samples_format": "png"},
        }
        there = answers[self.path]
        self._answer(*((404, {"detail": "Not Found"}) if there is None else (200, there)))

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/asyndm/v1/tokens":
            words = [word for word in request["targets"].split(",") if word]
            targets = [{"text": word, "found": word in request["prompt"]} for word in words]
            self._answer(200, {"targets": targets, "error": None})
            return
        self.server.asked.append((self.headers.get("Authorization"), request))
        if self.server.dies_at is not None and len(self.server.asked) >= self.server.dies_at:
            self.close_connection = True  # without an answer
            return
        if self.server.meeting is not None:
            self.server.meeting.wait()
        if request["prompt"] == "refused":
            self._answer(422, {"detail": "no such sampler"})
            return
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (request["seed"], 0, 0)).save(file, "PNG")
        messages = self.server.messages
        if request["prompt"] == "beautiful" and request["alwayson_scripts"]["AsynDM"]["args"][0]["enabled"]:
            messages = ["No word of the prompt names a thing"]
        extra = {"AsynDM messages": messages} if messages else {}
        picture = base64.b64encode(file.getvalue()).decode()
        self._answer(200, {"images": [picture], "info": json.dumps({"extra_generation_params": extra})})

    def _answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.asked, server.messages, server.scripts = [], [], ["x/y/z plot", "AsynDM"]
    server.model, server.dies_at, server.meeting = "model.safetensors", None, None
    server.schedules = [{"name": "automatic", "label": "Automatic"}]
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server():
    with serving() as server:
        yield server


def test_what_a_webui_is_asked(server):
    webui = WebUI(server.url + "/", 512, 384)
    for server.model in ("model.safetensors", "model.safetensors [0123456789]"):  # before and after it has its hash
        assert webui.check(WAY) == {"sd_model_checkpoint": "model.safetensors", "sd_vae": "None"}
    picture = webui.picture(PROMPT, WAY, FRESH, 77)
    assert picture.getpixel((0, 0)) == (77, 0, 0)
    webui.picture(PROMPT, WAY, Method("all", Settings(whole_picture=True, concavity=0.7)), 5)
    webui.picture(PROMPT, Way("x", "Euler a", "karras", 20, 7.0), DM, 5)
    (nobody, fresh), (_, whole), (_, ordinary) = server.asked
    assert nobody is None
    assert fresh == {
        "prompt": PROMPT.text, "seed": 77, "steps": 7, "cfg_scale": 5.0, "width": 512, "height": 384,
        "sampler_name": "DDIM", "scheduler": "automatic", "eta": 1.0, "alwayson_scripts": {"AsynDM": {"args": [
            {"enabled": True, "concavity": 0.7, "mask_timing": "fresh", "targets": "cat:0.7, dog:0.3"}]}},
    }  # fmt: skip
    assert whole["alwayson_scripts"]["AsynDM"]["args"] == [{"enabled": True, "concavity": 0.7, "whole_picture": True}]
    assert ordinary["alwayson_scripts"]["AsynDM"]["args"] == [{"enabled": False}]
    assert "eta" not in ordinary


def test_a_password_is_sent_and_not_shown(server):
    webui = WebUI(server.url.replace("://", "://me:secret@"), 64, 64)
    webui.picture(PROMPT, WAY, DM, 1)
    assert server.asked[0][0] == "Basic " + base64.b64encode(b"me:secret").decode()
    with pytest.raises(AsynDMError) as caught:
        webui.picture(Prompt("refused", ""), WAY, DM, 1)
    assert "no such sampler" in str(caught.value)
    assert "secret" not in str(caught.value)


STRANGE = [None, 5, "text", [], [5], {}, {"txt2img": None}, {"txt2img": 5}, {"images": [5], "info": "{}"}]
STRANGE += [
    {"images": [], "info": json.dumps({"extra_generation_params": told})}
    for told in (None, [], {}, {"AsynDM messages": 5})
]
STRANGE += [{"images": ["%"], "info": "[" * 10**6}]


@pytest.mark.parametrize("answer", STRANGE)
def test_strange_answers_of_a_webui_are_one_line(answer, monkeypatch):
    webui = WebUI("http://127.0.0.1:9", 64, 64)
    monkeypatch.setattr(webui, "_call", lambda path, *_: answer)
    with pytest.raises(AsynDMError, match="has no AsynDM"):
        webui.check(WAY)
    with pytest.raises(NoPicture, match="holds no picture"):
        webui.picture(PROMPT, WAY, FRESH, 1)
    assert webui.problem(PROMPT) is None
    known = {"/sdapi/v1/scripts": {"txt2img": ["asyndm"]}, "/sdapi/v1/options": answer}
    monkeypatch.setattr(webui, "_call", lambda path, *_: known.get(path))
    if not isinstance(answer, dict):
        with pytest.raises(AsynDMError, match="does not tell its settings"):
            webui.check(WAY)


def test_what_is_wrong_with_a_webui_is_said(server):
    webui = WebUI(server.url, 64, 64)
    server.messages = ["'zebra' is not in the prompt"]
    with pytest.raises(AsynDMError, match="zebra"):
        webui.picture(PROMPT, WAY, FRESH, 1)
    server.scripts = ["x/y/z plot"]
    with pytest.raises(AsynDMError, match="has no AsynDM"):
        webui.check(WAY)
    with pytest.raises(AsynDMError, match="no WebUI with --api answers"):
        WebUI("http://127.0.0.1:9", 64, 64).check(WAY)


@pytest.mark.parametrize(
    "url",
    ["my webui", "ftp://127.0.0.1:7860", "http://", "http://a b:1", "http://127.0.0.1:0", "http://127.0.0.1:99999", "",
     "file:///etc/passwd", "http://[::1", "http://127.0.0.1:port"],
)  # fmt: skip
def test_what_is_no_address_of_a_webui_is_refused_at_once(url):
    with pytest.raises(AsynDMError, match="no address: it must be as http://127"):
        WebUI(url, 64, 64)


@pytest.mark.parametrize("tail", ["", "/", "/?__theme=dark", "/#tab"])
def test_an_address_may_be_as_a_browser_shows_it(server, tail):
    for url in (server.url, server.url.removeprefix("http://"), f" {server.url}"):
        assert WebUI(url + tail, 64, 64).check(WAY)["sd_model_checkpoint"] == "model.safetensors"


def test_a_machine_that_is_not_there_is_not_waited_for(monkeypatch):
    waited = []

    def connect(address, timeout, *rest):
        waited.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(AsynDMError, match=r"no WebUI with --api answers at https?://10\.0\.0\.1"):
        WebUI("http://10.0.0.1", 64, 64).picture(PROMPT, WAY, DM, 1)
    with pytest.raises(AsynDMError, match="timed out"):
        WebUI("https://10.0.0.1", 64, 64).check(WAY)
    assert waited == [webui_module.CONNECT] * 2


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (Way("x", "Eulr a", "automatic", 5, 5.0), "'Eulr a' is no sampler; did you mean 'Euler a'"),
        (Way("x", "DDIM", "karras", 5, 5.0), "'karras' is no scheduler"),
    ],
)
def test_a_sampler_that_the_webui_lacks_is_said_before_the_pictures(server, way, said):
    with pytest.raises(AsynDMError, match=said):
        WebUI(server.url, 64, 64).check(way)
    assert server.asked == []


def test_where_schedules_stand_in_the_samplers_names_the_sampler_is_named_so(server):
    """Forge Classic has no schedule types."""
    server.schedules = None
    webui, way = WebUI(server.url, 64, 64), Way("x", "Euler a", "sgm_uniform", 5, 5.0)
    webui.check(way)
    webui.picture(PROMPT, way, DM, 1)
    assert server.asked[0][1]["sampler_name"] == "Euler A SGMUniform"
    with pytest.raises(AsynDMError, match="no sampler 'DDIM karras'; leave out the schedule or choose another"):
        webui.check(Way("x", "DDIM", "karras", 5, 5.0))
    webui.check(WAY)
    webui.picture(PROMPT, WAY, DM, 1)
    assert server.asked[1][1]["sampler_name"] == WAY.sampler


def test_the_command_drives_a_webui_and_goes_on_after_a_stop(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scorers, "available", lambda device, exact, names: ({"red": RED}, {"CLIPScore": "no weights"}))
    prompts = write(tmp_path, "p.txt", "a cat\tcat\na dog\tdog\n")
    folder = tmp_path / "made"
    arguments = ["evaluate", "--webui", server.url, "--prompts", str(prompts), "--folder", str(folder), "--seeds", "2"]
    assert cli.main(arguments) == 0
    assert len(server.asked) == 2 * 2 * len(gallery.METHODS)
    out = capsys.readouterr().out
    assert "no CLIPScore: no weights" in out
    assert out.count("+0.0000 ± 0.0000") == len(gallery.METHODS) - 1
    (folder / "asyndm" / "0001-1.png").unlink()
    assert cli.main(arguments) == 0
    assert len(server.asked) == 2 * 2 * len(gallery.METHODS) + 1


RED = Scorer(lambda: lambda prompt, picture: picture.getpixel((0, 0))[0] / 255, "red")


@pytest.fixture
def over_webui(server, tmp_path, capsys):
    """Runs the command over the WebUI in a folder of the test's, and returns its code and what it
    said."""

    def run(*arguments):
        code = cli.main(["evaluate", "--webui", server.url, "--folder", str(tmp_path / "made"), *arguments])
        return code, capsys.readouterr()

    return run


@pytest.fixture
def evaluate(over_webui, tmp_path, monkeypatch):
    """Runs the command over the WebUI on prompts, and returns its code and what it said."""
    monkeypatch.setattr(scorers, "available", lambda device, exact, names: ({"red": RED}, {}))

    return lambda prompts, *more: over_webui("--prompts", str(write(tmp_path, "p.txt", prompts)), *more)


def test_a_prompt_that_names_nothing_is_skipped_and_the_rest_is_made(server, evaluate):
    code, said = evaluate("a cat\tcat\nbeautiful\na dog\tdog\nrefused\tref\nan owl\tzebra\n", "--seeds", "1")
    assert code == 0
    assert "skipped, 'beautiful': No word of the prompt names a thing" in said.out
    assert "skipped, 'refused'" in said.out
    assert "skipped, 'an owl': not in it: 'zebra'" in said.out
    assert "3 of 5 prompts were skipped" in said.out
    assert "AsynDM fresh" in said.out
    made = [request["prompt"] for _, request in server.asked]
    assert [made.count(text) for text in ("a cat", "a dog", "beautiful", "refused", "an owl")] == [4, 4, 1, 1, 0]
    server.asked.clear()
    code, again = evaluate("a cat\tcat\nbeautiful\na dog\tdog\nrefused\tref\nan owl\tzebra\n", "--seeds", "1")
    assert (code, again.out) == (0, said.out)
    assert [request["prompt"] for _, request in server.asked] == ["beautiful", "refused"]


def test_no_prompt_with_pictures_is_said(evaluate):
    code, said = evaluate("beautiful\n")
    assert code == 2
    assert "no prompt has pictures to compare" in said.err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--steps", "20"], "sampling steps: 50 there, 20 here"),
        (["--sampler", "Euler a"], "sampling sampler: DDIM there, Euler a here"),
        (["--cfg", "7"], "sampling cfg: 5.0 there, 7.0 here"),
        (["--eta", "1"], "sampling eta: nothing there, 1.0 here"),
        (["--width", "64"], "sampling width: 512 there, 64 here"),
        ("other.safetensors", "sd_model_checkpoint: model.safetensors there, other.safetensors here"),
        ("a bird\tbird\n", "prompts 1 text: a cat there, a bird here"),
        ("a cat\t\n", 'prompts 1 targets: cat there, "" here'),
    ],
)
def test_pictures_of_another_question_are_not_used(server, evaluate, change, named):
    assert evaluate("a cat\tcat\n", "--seeds", "1")[0] == 0
    server.asked.clear()
    prompts = "a cat\tcat\n"
    if isinstance(change, str):
        server.model, prompts = (change, prompts) if "\n" not in change else (server.model, change)
    code, said = evaluate(prompts, "--seeds", "1", *(change if isinstance(change, list) else ()))
    assert code == 2
    assert said.err.count("\n") == 1
    assert "holds the work of another question" in said.err
    assert named in said.err
    assert server.asked == []


def test_more_prompts_and_seeds_of_the_same_question_go_on(server, evaluate):
    assert evaluate("a cat\tcat\na dog\tdog\n", "--seeds", "1", "--count", "1")[0] == 0
    server.asked.clear()
    assert evaluate("a cat\tcat\na dog\tdog\nan owl\towl\n", "--seeds", "2", "--count", "2")[0] == 0
    assert len(server.asked) == (1 + 2) * len(gallery.METHODS)


def test_pictures_without_a_manifest_are_nobodys(tmp_path, evaluate):
    assert evaluate("a cat\tcat\n")[0] == 0
    manifest = tmp_path / "made" / "manifest.json"
    kept = manifest.read_text()
    manifest.unlink()
    code, said = evaluate("a dog\tdog\n")
    assert code == 2
    assert "manifest.json is missing" in said.err
    manifest.write_text("{}")  # a person says that they are of this question
    assert evaluate("a cat\tcat\n")[0] == 0
    assert json.loads(manifest.read_text()) == json.loads(kept)


def test_scores_of_another_scorer_are_not_used(monkeypatch, evaluate):
    assert evaluate("a cat\tcat\n")[0] == 0
    other = Scorer(lambda: lambda prompt, picture: 1.0, "redder")
    monkeypatch.setattr(scorers, "available", lambda device, exact, names: ({"red": other}, {}))
    code, said = evaluate("a cat\tcat\n")
    assert code == 2
    assert "scorers red: red there, redder here" in said.err


def test_scores_that_cannot_be_read_are_named(tmp_path, evaluate):
    assert evaluate("a cat\tcat\n")[0] == 0
    for content in ("{", "[1]", '{"a": 1}'):
        (tmp_path / "made" / "scores.json").write_text(content)
        code, said = evaluate("a cat\tcat\n")
        assert code == 2
        assert "scores.json" in said.err
        assert "delete it" in said.err


def test_on_this_machine_a_prompt_that_names_nothing_is_skipped_too(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scorers, "available", lambda device, exact, names: ({"red": RED}, {}))
    text = f"beautiful\na cat\na cat and a dog\tcat, zebra\na dog\n{'cat ' * 80}\n"
    prompts, folder = write(tmp_path, "p.txt", text), tmp_path / "made"
    arguments = ["evaluate", "--prompts", str(prompts), "--folder", str(folder), "--seeds", "1", "--device", "cpu"]
    size = ["--sampler", "Euler", "--steps", "4", "--width", "64", "--height", "64"]
    assert cli.main([*arguments, *size]) == 0
    out = capsys.readouterr().out
    assert "skipped, 'beautiful': no word of it names a thing" in out
    assert "skipped, 'a cat and a dog': not in it: 'zebra'" in out
    assert "more than 75 tokens" in out
    assert "3 of 5 prompts were skipped" in out
    assert sorted(path.name for path in folder.glob("*/*.png")) == ["0001-0.png"] * 4 + ["0003-0.png"] * 4
    scores = json.loads((folder / "scores.json").read_text())
    assert len(scores) == 8
    assert cli.main([*arguments, *size, "--steps", "5"]) == 2
    assert "sampling steps: 4 there, 5 here" in capsys.readouterr().err
    assert cli.main([*arguments, *size, "--model", "transformer"]) == 2
    assert "model: emoji.safetensors there, transformer.safetensors here" in capsys.readouterr().err


def test_without_a_scorer_no_picture_is_made(server, monkeypatch, evaluate):
    monkeypatch.setattr(scorers, "available", lambda device, exact, names: ({}, {"CLIPScore": "no weights"}))
    code, said = evaluate("a cat\tcat\n")
    assert code == 2
    assert "install what is missing first, for CLIPScore: python -c" in said.err
    assert server.asked == []


# Scores


def test_scores_are_paired_by_prompt_and_seed(tmp_path):
    methods = (DM, Method("AsynDM", FRESH.settings))
    pictures = Gallery(tmp_path, [PROMPT, PROMPT, PROMPT], methods, range(2))
    scored = []

    class Maker:
        def problem(self, prompt):
            return None

        def picture(self, prompt, way, method, seed):
            return Image.new("RGB", (4, 4), (method is not DM, seed, 0))

    def score(prompt, picture):
        scored.append(picture.getpixel((0, 0)))
        return 2.0 + picture.getpixel((0, 0))[0] + 10 * picture.getpixel((0, 0))[1]

    assert pictures.fill([Maker()], WAY) == {}
    scores = pictures.scores({"s": Scorer(lambda: score, "")}, {})
    assert scores["s"]["DM"].tolist() == [[2, 12]] * 3
    assert scores["s"]["AsynDM"].tolist() == [[3, 13]] * 3
    assert len(scored) == 12
    pictures.scores({"s": Scorer(lambda: score, "")}, {})
    assert len(scored) == 12  # on file
    lines = gallery.table(scores)
    assert lines[1].split() == ["DM", "7.0000"]
    assert lines[2].split() == ["AsynDM", "+1.0000", "±", "0.0000"]


# Records


@pytest.mark.parametrize(
    ("options", "former", "present"),
    [
        ([], "record.jsonl", "results.jsonl"),
        (["--model", "transformer"], "record.jsonl", "transformer.jsonl"),
        (["--small"], "small.jsonl", "small-results.jsonl"),
    ],
)
def test_a_record_under_its_former_name_is_not_begun_anew(capsys, monkeypatch, tmp_path, options, former, present):
    line = {"way": "a", "method": "b", "set": "c", "half": "report", "prompt": 0, "on": "a CPU", "seeds": [3]}
    write(tmp_path, former, json.dumps({**line, "shown": [[1, 2, 0]]}) + "\n")
    gone_on = []

    def run(rounds, prompts, batches, network, record, *rest):
        gone_on.append(record.shown("a", "b", "c", "report", 0))
        raise AsynDMError("stop here")

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(command, "load", lambda *model: None)
    monkeypatch.setattr(command, "Batches", lambda model: None)
    arguments = ["evaluate", "--folder", str(tmp_path), *options]
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{tmp_path / former} " in told
    assert f"rename it to {present} " in told
    (tmp_path / former).rename(tmp_path / present)
    write(tmp_path, former, "")  # another one beside it hinders nothing
    assert cli.main(arguments) == 2
    manifest = tmp_path / present.replace(".jsonl", ".manifest.json")
    assert f"{manifest.name} is missing" in capsys.readouterr().err
    write(tmp_path, manifest.name, {})
    assert cli.main(arguments) == 2
    assert list(gone_on[0]) == [3]
    content = json.loads(manifest.read_text())
    write(tmp_path, manifest.name, {**content, "counter": "another"})
    assert cli.main(arguments) == 2
    assert "holds the work of another question (counter: another there" in capsys.readouterr().err


# Several WebUIs


@pytest.fixture
def evaluate_several(tmp_path, capsys, monkeypatch):
    """Runs the command over several WebUIs, and returns its code and what it said."""
    monkeypatch.setattr(scorers, "available", lambda device, exact, names: ({"red": RED}, {}))
    file, folder = write(tmp_path, "p.txt", "a cat\tcat\na dog\tdog\na hen\then\n"), tmp_path / "made"

    def run(*urls):
        code = cli.main(["evaluate", "--prompts", str(file), "--folder", str(folder), "--seeds", "2", "--webui", *urls])
        return code, capsys.readouterr(), len(list(folder.glob("*/*.png")))

    return run


WHOLE = 3 * 2 * len(gallery.METHODS)
NOWHERE = "http://127.0.0.1:9"


def test_pictures_go_to_every_webui_that_is_free(evaluate_several):
    with serving() as one, serving() as other:
        one.meeting = other.meeting = threading.Barrier(2, timeout=20)  # each picture of one while the other makes one
        code, said, made = evaluate_several(one.url, other.url)
        assert (code, made) == (0, WHOLE)
        assert len(one.asked) == len(other.asked) == WHOLE // 2
        asked = [(r["prompt"], r["seed"], json.dumps(r["alwayson_scripts"])) for _, r in one.asked + other.asked]
        assert len(set(asked)) == WHOLE
        assert said.out.count("model: model.safetensors") == 1


def test_a_webui_that_dies_is_named_and_the_others_make_its_pictures(evaluate_several):
    with serving() as one, serving() as other:
        one.dies_at = 3
        code, said, made = evaluate_several(one.url, other.url)
        assert (code, made) == (0, WHOLE)
        assert len(one.asked) == 3
        assert len(other.asked) == WHOLE - 2
        assert said.out.count(f"no WebUI with --api answers at {one.url}") == 1
        assert "1 of 2 go on without it" in said.out
        assert "no WebUI with --api answers at" not in said.err


def test_when_all_webuis_die_one_line_says_so_and_the_pictures_are_kept(evaluate_several):
    with serving() as one, serving() as other:
        one.dies_at = other.dies_at = 5
        code, said, made = evaluate_several(one.url, other.url)
        assert (code, made) == (2, 8)
        assert said.err.count("\n") == 1
        assert "what is made is kept: start this command again to go on" in said.err
        one.dies_at = None
        code, said, made = evaluate_several(one.url)
        assert (code, made) == (0, WHOLE)
        assert len(one.asked) + len(other.asked) == WHOLE + 2


def test_a_webui_that_is_not_there_at_first_is_named(evaluate_several):
    with serving() as one:
        code, said, made = evaluate_several(NOWHERE, one.url)
        assert (code, made) == (0, WHOLE)
        assert f"without it: no WebUI with --api answers at {NOWHERE}" in said.out
    code, said, _ = evaluate_several(NOWHERE, "http://127.0.0.1:10")
    assert code == 2
    assert "none of the 2 WebUIs answers" in said.err


def test_webuis_with_different_models_are_refused(evaluate_several):
    with serving() as one, serving() as other:
        other.model = "another.safetensors"
        code, said, made = evaluate_several(one.url, other.url)
        assert (code, made) == (2, 0)
        assert "model.safetensors there, another.safetensors here" in said.err
        assert one.url in said.err
        assert other.url in said.err


# Prompts in GenEval's manner


@pytest.fixture
def geneval_run(over_webui, monkeypatch):
    """Runs the command with prompts in GenEval's manner, and returns its code and what it said."""
    half = Scorer(lambda: lambda prompt, picture: float(prompt.kind == "counting"), "a stand-in")
    kinds = {"CLIPScore": RED, "GenEval": half}
    missing = {"QwenScore": "no weights"}

    def available(device, exact, names):
        assert not exact
        return tuple({name: one[name] for name in one if name in names} for one in (kinds, missing))

    monkeypatch.setattr(scorers, "available", available)

    return lambda *more: over_webui("--seeds", "1", *more)


def test_prompts_in_genevals_manner_are_made_and_told_by_kind(server, geneval_run):
    code, said = geneval_run("--geneval", "--count", "12")
    assert code == 0
    assert "12 prompts, 1 seeds" in said.out
    assert {request["prompt"] for _, request in server.asked} == {scene.text for scene in geneval.prompts(12)}
    head, ordinary = said.out.split("GenEval by kind\n")[1].splitlines()[:2]
    assert all(kind in head for kind in geneval.SHARES)
    assert sorted(ordinary.split()) == ["0.0000"] * 5 + ["1.0000", "DM"]
    assert "no QwenScore: no weights" in said.out
    code, said = geneval_run("--geneval", "1", "--count", "12")
    assert code == 2  # another question in the same folder
    assert "another question" in said.err


def test_only_the_scorers_that_are_asked_for_are_told_of(geneval_run):
    code, said = geneval_run("--geneval", "--count", "6", "--scorers", "clipscore")
    assert code == 0
    assert "GenEval" not in said.out
    assert "QwenScore" not in said.out
    code, said = geneval_run("--geneval", "--count", "6", "--scorers", "QwenScore")
    assert code == 2
    assert f"for QwenScore: {scorers.GET['QwenScore']}" in said.err
    assert "for CLIPScore" not in said.err


def test_geneval_judges_its_own_prompts_only(geneval_run):
    code, said = geneval_run("--scorers", "GenEval")
    assert code == 2
    assert "GenEval judges the prompts of --geneval alone" in said.err
    assert cli.SCORERS == scorers.NAMES


def test_genevals_prompts_are_no_file(geneval_run, tmp_path):
    assert geneval_run("--geneval", "--prompts", str(write(tmp_path, "p.txt", "a cat")))[0] == 2
