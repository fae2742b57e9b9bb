"""A real WebUI, started on a data folder of its own so that the installed one stays as it is."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pictures
import pytest
from family import HOST

REPOSITORY = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).with_name("probe")
_SMALL = "tiny_configurations" if HOST.forge else "tiny_sd3"
ALWAYS = {_SMALL: Path(__file__).with_name(_SMALL)}
"""The extensions of every WebUI under test."""

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "SD_WEBUI_RESTARTING": "1",  # opens no browser
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
OPTIONS = {
    "sd_model_checkpoint": "tiny-sd1.safetensors",
    "show_progress_type": "Approx cheap",  # the default wants a download
    "samples_save": False,
    "grid_save": False,
    "save_init_img": False,
    **HOST.options,
}
DIGESTS = os.environ.get("ASYNDM_DIGESTS")
START_SECONDS = 600  # a busy machine takes minutes to load torch and the checkpoint
REQUEST_SECONDS = 300


@dataclass
class Answer:
    """An API answer to a picture request. ``pictures`` are PNG files as sent; ``info`` is the
    host's, decoded."""

    status: int
    pictures: list[bytes]
    info: dict[str, Any]
    seconds: float

    @property
    def messages(self) -> list[str]:
        return self.info.get("extra_generation_params", {}).get("AsynDM messages", [])

    @property
    def infotext(self) -> str:
        return self.info["infotexts"][0]


class WebUI:
    """One running WebUI. ``folder`` is its data folder, with ``models`` and ``embeddings`` beside
    it. ``options`` are in its configuration beside the common ones."""

    def __init__(
        self,
        webui: Path,
        folder: Path,
        extensions: dict[str, Path],
        flags: Sequence[str] = (),
        api: bool = True,
        options: Mapping[str, Any] | None = None,
    ):
        self.folder = folder
        flags = [*HOST.flags, *(["--api"] if api else []), *flags]
        (folder / "extensions").mkdir(parents=True)
        (folder / "tmp").mkdir()
        for name, source in {**ALWAYS, **extensions}.items():
            (folder / "extensions" / name).symlink_to(source, target_is_directory=True)
        (folder / "config.json").write_text(json.dumps({**OPTIONS, **(options or {})}))
        # Some extensions (NegPiP) read it while they load, and do not begin without.
        (folder / "ui-config.json").write_text(json.dumps(HOST.page))
        self.log_path = folder.with_suffix(".log")
        self.headers = {"Content-Type": "application/json"}
        if "--api-auth" in flags:
            user = flags[flags.index("--api-auth") + 1].encode()
            self.headers["Authorization"] = f"Basic {base64.b64encode(user).decode()}"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._log = self.log_path.open("w")
        shared = folder.parent
        self._process = subprocess.Popen(
            [
                *(python_of(webui), "launch.py", *flags),
                *("--data-dir", folder, HOST.models, shared / "models", "--embeddings-dir", shared / "embeddings"),
                *HOST.begins_with(shared / "models" / "Stable-diffusion" / OPTIONS["sd_model_checkpoint"]),
                *("--server-name", "127.0.0.1", "--port", str(self.port)),
                # Gradio 4 serves a page no files outside the data folder.
                *(("--gradio-allowed-path", webui.resolve()) if HOST.forge else ()),
            ],
            cwd=webui,
            env={**os.environ, **ENVIRONMENT, "TMPDIR": str(folder / "tmp")},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait(self) -> None:
        """Wait until the API answers. Then store all options once, so that request overrides are
        taken back."""
        options = self.wait_for("/sdapi/v1/options")
        # Forge's API gives out 3.0, with which its own UniPC fails.
        whole = {name: int(value) for name, value in options.items() if name == "uni_pc_order"}
        self.post("/sdapi/v1/options", {**options, **whole})

    def wait_for(self, path: str, starts: int = 1) -> Any:
        """Wait until ``path`` is answered after so many starts of the page. A request before the
        end of one can break it."""
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.log().count("Startup time: ") >= starts:
                    return self.get(path)
                raise RuntimeError("not yet")
            except (OSError, RuntimeError):
                if self._process.poll() is not None or time.monotonic() > end:
                    tail = "".join(self.log_path.read_text(errors="replace").splitlines(keepends=True)[-30:])
                    raise RuntimeError(f"the WebUI did not start; the end of its log:\n{tail}") from None
                time.sleep(0.5)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def log(self, start: int = 0) -> str:
        """The server's output from byte ``start`` on."""
        return self.log_path.read_bytes()[start:].decode(errors="replace")

    def log_size(self) -> int:
        return self.log_path.stat().st_size

    def get(self, path: str) -> Any:
        return self._checked(*self.call(path, None))

    def post(self, path: str, body: Any = None) -> Any:
        return self._checked(*self.call(path, {} if body is None else body))

    def make(self, request: dict[str, Any], kind: str = "txt2img") -> Answer:
        if "infotext" in request and "API infotext" in HOST.lacks:
            pytest.skip(HOST.lacks["API infotext"])
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
        asked = HOST.asked(request)
        start = time.monotonic()
        status, answer = self.call(f"/sdapi/v1/{kind}", asked)
        seconds = time.monotonic() - start
        if status != 200:
            made = Answer(status, [], answer if isinstance(answer, dict) else {"answer": answer}, seconds)
        else:
            files = [base64.b64decode(picture) for picture in answer["images"]]
            made = Answer(status, files, json.loads(answer["info"]), seconds)
        if DIGESTS:
            self._record(test, kind, asked, made)
        return made

    def _record(self, test: str, kind: str, asked: dict[str, Any], made: Answer) -> None:
        """Append a line of the file ``ASYNDM_DIGESTS``, for digests.py to compare with another
        commit's.
        """
        line = {
            "test": test,
            "server": self.folder.name,
            "kind": kind,
            "request": _md5(asked),
            "status": made.status,
            "pictures": [pictures.digest(png) for png in made.pictures],
            "infotext": _md5(made.info.get("infotexts")),
        }
        with Path(DIGESTS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    @staticmethod
    def _checked(status: int, answer: Any) -> Any:
        if status != 200:
            raise RuntimeError(f"HTTP {status}: {answer}")
        return answer

    def call(self, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the decoded answer of a GET, or with a body of a POST.

        A body of bytes is sent as it is, anything else as JSON.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self.headers)
        try:
            with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                return error.code, json.loads(text)
            except ValueError:
                return error.code, text


def python_of(webui: Path) -> str:
    """The WebUI's own Python."""
    own = webui / "venv" / "bin" / "python"
    return os.environ.get("ASYNDM_WEBUI_PYTHON") or (str(own) if own.exists() else sys.executable)


def _md5(value: Any) -> str:
    return hashlib.md5(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
