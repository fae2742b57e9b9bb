"""The host suite: a real WebUI with the extension, and one without it for the bytes to compare
with.

    ASYNDM_WEBUI=/path/to/stable-diffusion-webui pytest tests/host

The WebUI's own folder is only read: models, settings and caches are in a temporary folder.
``ASYNDM_WEBUI_PYTHON`` names its Python where that is not venv/bin/python in it.
``ASYNDM_DIGESTS`` names a file to which every answer adds a line with digests of its pictures'
pixels; digests.py compares the files of two commits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import materials
import pytest
import webui_page
from family import FOLDER, HOST, version
from reference import Reference
from requests_table import drawing, in_base64
from webui import PROBE, REPOSITORY, WebUI

pytest.register_assert_rewrite("row_check")

HERE = Path(__file__).parent
ABSENT = "ASYNDM_WEBUI (the folder of a WebUI) is not set"

collect_ignore_glob = [] if FOLDER else ["test_host_*.py"]  # test_webui.py then says so
_lines: list[str] = []


def pytest_report_header() -> str:
    return f"host: {HOST.name} {version()} in {FOLDER}" if FOLDER else f"host: none ({ABSENT})"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not FOLDER:
        terminalreporter.write_line(f"host suite skipped: {ABSENT}")
        return
    outcomes = {}
    for kind in ("passed", "failed", "error", "skipped"):
        reports = terminalreporter.stats.get(kind, [])
        outcomes[kind] = [r for r in reports if HERE in (terminalreporter.config.rootpath / r.nodeid).parents]
    skipped: dict[str, list[str]] = {}
    for report in outcomes["skipped"]:
        reason, name = report.longrepr[2].removeprefix("Skipped: "), report.nodeid.rpartition("/")[2]
        skipped.setdefault(reason, []).append(name)
    for line in _lines:
        terminalreporter.write_line(line)
    for reason, names in sorted(skipped.items()):
        terminalreporter.write_line(f"skipped, as {reason}: {', '.join(names)}")
    counts = ", ".join(f"{len(reports)} {kind}" for kind, reports in outcomes.items())
    terminalreporter.write_line(f"host rows on {HOST.name} {version()[:12]}: {counts}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host")
    materials.make(Path(FOLDER), folder)
    return folder


Started = AbstractContextManager[list[WebUI]]


@pytest.fixture(scope="session")
def start(folder: Path) -> Callable[..., Started]:
    """``start(*flags)``: a WebUI with the extension and one without it, running inside the
    ``with``."""

    @contextmanager
    def start(*flags: str) -> Iterator[list[WebUI]]:
        webui = Path(FOLDER)
        servers = [
            WebUI(webui, folder / "".join(["with", *flags]), {"asyndm": REPOSITORY, "asyndm_probe": PROBE}, flags),
            WebUI(webui, folder / "".join(["without", *flags]), {}, flags),
        ]
        try:
            for server in servers:
                server.wait()
            yield servers
        finally:
            for server in servers:
                server.stop()

    return start


@pytest.fixture(scope="session")
def alone(folder: Path) -> Callable[..., AbstractContextManager[WebUI]]:
    """``alone(name, *flags)``: one WebUI with the extension, running inside the ``with``. With
    ``api`` it has the API only."""

    @contextmanager
    def alone(name: str, *flags: str, api: bool = True) -> Iterator[WebUI]:
        extensions = {"asyndm": REPOSITORY, "asyndm_probe": PROBE}
        server = WebUI(Path(FOLDER), folder / name, extensions, flags, api)
        try:
            server.wait() if api else server.wait_for("/internal/ping")
            if api:
                _first_picture(server)
            yield server
        finally:
            server.stop()

    return alone


def _first_picture(server: WebUI) -> None:
    # Its model is loaded with the first picture, and no prompt's tokens are known before.
    if HOST.lazy:
        server.make({"prompt": "", "steps": 1, "width": 64, "height": 64})


@pytest.fixture(scope="session")
def _servers(start: Callable[..., Started], folder: Path):
    with start() as servers:
        _first_picture(servers[0])
        of = servers[0].get("/asyndm-probe/version")
        _lines.append(f"host: {HOST.name} {of['tag']} ({version()[:12]}), torch {of['torch']}")
        _lines.append(f"logs and screenshots: {folder}")
        yield servers


@pytest.fixture(scope="session")
def host(_servers: list[WebUI]) -> WebUI:
    """The WebUI with the extension (and the probe)."""
    return _servers[0]


@pytest.fixture(scope="session")
def reference(_servers: list[WebUI]) -> Reference:
    return Reference(_servers[1])


@pytest.fixture
def hooks_of_others() -> bool:
    """Whether other extensions may leave hooks of their own on the model."""
    return False


@pytest.fixture
def nothing_left(host: WebUI, hooks_of_others: bool):
    """Checks afterwards that no hook, no patch and no object of the extension is left in the
    host."""
    yield
    end = time.monotonic() + 10
    while True:  # a page that was closed may have asked a question that is still being answered
        left = host.get("/asyndm-probe/left")
        left.pop("tensors")
        if hooks_of_others:
            left["others"] = []
            for texts in ("OfPictures", "_ForInfo"):  # of the jobs that others keep
                left["objects"].pop(texts, None)
        if not left["objects"] or time.monotonic() > end:
            break
        time.sleep(0.5)
    assert left == {"hooks": [], "others": [], "patches": [], "objects": {}}


@pytest.fixture
def quiet(host: WebUI):
    """Checks afterwards that the host's log has no traceback, and none of the errors that it
    reports and passes over."""
    start = host.log_size()
    yield
    log = host.log(start)
    assert "Traceback" not in log, log
    assert "*** Error" not in log, log


@pytest.fixture(scope="session")
def start_picture() -> str:
    """A start picture for img2img, as the API takes it."""
    return in_base64(drawing())


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="the package playwright is not installed (requirements-host.txt)"
    )
    if not webui_page.CHROMIUM:
        pytest.skip("no Chromium is installed (ASYNDM_CHROMIUM may name it)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=webui_page.CHROMIUM, args=webui_page.FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shots(folder: Path) -> Path:
    shots = folder / "screenshots"
    shots.mkdir()
    return shots


@pytest.fixture
def page(browser: Any, host: WebUI, shots: Path):
    page = webui_page.opened(browser, host, shots)
    yield page
    page.page.close()
