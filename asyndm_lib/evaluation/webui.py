"""Pictures from a running WebUI, by its API."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import urllib.error
import urllib.request
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from ..demo.program import known, meant
from ..errors import AsynDMError
from ..hosts.standalone.embedded import SYNCHRONOUS
from .methods import Method, Way
from .prompts import NoPicture, Prompt
from .spread import Gone

SECONDS = 600
"""How many seconds a picture may take."""

CONNECT, ANSWER = 10, 60
"""How many seconds a WebUI may take to be connected to, and to answer a question."""

GATEWAY = (502, 503, 504)
"""What a proxy answers for a WebUI that does not."""

OPTIONS = (
    *("sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers", "eta_noise_seed_delta", "randn_source"),
    *("eta_ancestral", "s_churn", "s_noise", "sd_unet", "token_merging_ratio", "upcast_attn", "emphasis"),
)
"""The WebUI's own settings that change a picture which a request does not set."""


class _Connection(http.client.HTTPConnection):
    """Is patient with a picture, and not with a machine that is not there."""

    def connect(self) -> None:
        patience, self.timeout = self.timeout, CONNECT
        super().connect()
        self.sock.settimeout(patience)


class _SafeConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS."""


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SafeConnection, request)


class WebUI:
    """A WebUI with this extension, started with ``--api``."""

    def __init__(self, url: str, width: int, height: int):
        """``url``: ``http://127.0.0.1:7860``, with ``user:password@`` before the host if it asks
        for one.

        Raises :class:`AsynDMError` if it is no such address.
        """
        self.url, login = _address(url)
        self._headers = {"Content-Type": "application/json"}
        if login:
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._size = {"width": width, "height": height}
        self._sampler: str | None = None  # as the WebUI calls it, once that is known
        # It stands on this machine or beside it: no proxy is asked.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Http, _Https)

    def check(self, way: Way) -> dict[str, Any]:
        """What decides the WebUI's pictures and is no part of a request, its model first.

        Raises :class:`Gone` if the WebUI does not answer, and :class:`AsynDMError` if it has no
        AsynDM, or lacks the sampler or schedule of ``way``.
        """
        scripts = self._call("/sdapi/v1/scripts")
        titles = scripts.get("txt2img") if isinstance(scripts, dict) else None
        if not isinstance(titles, list) or "asyndm" not in [str(title).lower() for title in titles]:
            raise AsynDMError(f"the WebUI at {self.url} has no AsynDM: install this extension in it and restart it")
        self._sampler = self._label(way)
        options = self._call("/sdapi/v1/options")
        if not isinstance(options, dict):
            raise AsynDMError(f"the WebUI at {self.url} does not tell its settings")
        found = {name: options[name] for name in OPTIONS if name in options}
        # A hash is added to the name once the WebUI has worked it out.
        return {**found, OPTIONS[0]: re.sub(r" \[[0-9a-f]+\]$", "", str(options.get(OPTIONS[0])))}

    def _label(self, way: Way) -> str:
        """How the WebUI calls the sampler of ``way``, whose schedule stands in the name where the
        WebUI has no schedule types beside its samplers."""
        samplers = self._names("/sdapi/v1/samplers", ("name",))
        schedules = self._names("/sdapi/v1/schedulers", ("name", "label"))
        for wanted, there, what in ((way.sampler, samplers, "sampler"), (way.schedule, schedules, "scheduler")):
            if there and wanted.casefold() not in [name.casefold() for name in there]:
                raise AsynDMError(f"the WebUI at {self.url}: {meant(wanted, there, what)}")
        if schedules or way.schedule == "automatic":
            return way.sampler
        found = known(f"{way.sampler} {way.schedule}", samplers)
        if found is None:
            raise AsynDMError(
                f"the WebUI at {self.url} has no schedule types beside its samplers, and no sampler "
                f"'{way.sampler} {way.schedule}'; leave out the schedule or choose another"
            )
        return found

    def _names(self, path: str, keys: tuple[str, ...]) -> list[str]:
        """Names of what the WebUI has; none where it does not tell."""
        try:
            return [str(one[key]) for one in self._call(path) for key in keys]
        except (_Refused, KeyError, TypeError):
            return []

    def problem(self, prompt: Prompt) -> str | None:
        """Why there can be no picture of the prompt with AsynDM, as far as it is known before."""
        try:
            answer = self._call("/asyndm/v1/tokens", {"prompt": prompt.text, "targets": prompt.targets})
            lost = [one["text"] for one in answer["targets"] if not one["found"]]
        except (_Refused, KeyError, TypeError):
            return None  # no model is loaded yet, for one
        return answer.get("error") or (f"not in it: {', '.join(map(repr, lost))}" if lost else None)

    def picture(self, prompt: Prompt, way: Way, method: Method, seed: int) -> Image.Image:
        """The picture that the WebUI makes.

        Raises :class:`NoPicture` with what the WebUI said if it made none, or made it without
        AsynDM, and :class:`Gone` if it does not answer.
        """
        request = {
            "prompt": prompt.text,
            "seed": seed,
            "steps": way.steps,
            "cfg_scale": way.cfg,
            **self._size,
            "sampler_name": self._sampler or way.sampler,
            "scheduler": way.schedule,
            "alwayson_scripts": {"AsynDM": {"args": [_arguments(prompt, method)]}},
            **({} if way.eta is None else {"eta": way.eta}),
        }
        try:
            answer = self._call("/sdapi/v1/txt2img", request, SECONDS)
        except _Refused as error:
            raise NoPicture(str(error)) from error
        try:
            told = json.loads(answer["info"])["extra_generation_params"].get("AsynDM messages", [])
            said = [str(one) for one in told]
            picture = Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).convert("RGB")
        except Exception as error:  # whatever json and Pillow raise of whatever it holds
            raise NoPicture(f"the answer of the WebUI at {self.url} holds no picture") from error
        if said:
            raise NoPicture("; ".join(said))
        return picture

    def _call(self, path: str, body: dict[str, Any] | None = None, seconds: float = ANSWER) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers)
        try:
            with self._opener.open(request, timeout=seconds) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            if error.code in GATEWAY:
                raise Gone(f"no WebUI with --api answers at {self.url}: {error}") from error
            raise _Refused(f"the WebUI at {self.url} refused {path} ({error.code}): {said:.200}") from error
        except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
            raise Gone(f"no WebUI with --api answers at {self.url}: {error}") from error


class _Refused(AsynDMError):
    """The WebUI answered with an error."""


def _address(url: str) -> tuple[str, str]:
    """The address without what stands before the host, and that: ``user:password``, or "".

    Raises :class:`AsynDMError` if it is no address of a WebUI.
    """
    scheme, given, rest = url.strip().rpartition("://")
    login, _, place = rest.rpartition("@")
    place = re.split("[?#]", place)[0].rstrip("/")  # as a browser shows it
    try:
        parts = urlsplit(f"{scheme if given else 'http'}://{place}")
        sound = parts.scheme in ("http", "https") and parts.port != 0
        sound = sound and re.fullmatch(r"[\w.:-]+", parts.hostname or "") is not None
    except ValueError:
        sound = False
    if not sound:
        raise AsynDMError(f"--webui {scheme + given + place!r:.80} is no address: it must be as http://127.0.0.1:7860")
    return parts.geturl(), login


def _arguments(prompt: Prompt, method: Method) -> dict[str, Any]:
    """AsynDM's settings for the API: those that differ from the default."""
    settings = method.settings
    if settings == SYNCHRONOUS:
        return {"enabled": False}
    own = {f.name: getattr(settings, f.name) for f in fields(settings) if getattr(settings, f.name) != f.default}
    return {**own, **({} if settings.whole_picture else {"targets": prompt.targets}), "enabled": True}
