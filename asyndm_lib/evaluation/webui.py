"""Pictures from a running WebUI, by its API."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from dataclasses import fields
from typing import Any

from PIL import Image

from ..errors import AsynDMError
from ..hosts.standalone.embedded import SYNCHRONOUS
from .methods import Method, Way
from .prompts import Prompt

SECONDS = 600
"""How many seconds a picture may take."""


class WebUI:
    """A WebUI with this extension, started with ``--api``."""

    def __init__(self, url: str, width: int, height: int):
        """``url``: ``http://127.0.0.1:7860``, with ``user:password@`` before the host if it asks
        for one."""
        scheme, _, rest = url.rstrip("/").rpartition("://")
        login, _, host = rest.rpartition("@")
        self._url = f"{scheme or 'http'}://{host}"
        self._headers = {"Content-Type": "application/json"}
        if login:
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._size = {"width": width, "height": height}
        # It stands on this machine or beside it: no proxy is asked.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def check(self) -> str:
        """The name of the WebUI's model.

        Raises :class:`AsynDMError` if the WebUI does not answer or has no AsynDM.
        """
        scripts = self._call("/sdapi/v1/scripts")["txt2img"]
        if "asyndm" not in [name.lower() for name in scripts]:
            raise AsynDMError(f"the WebUI at {self._url} has no AsynDM: install this extension in it and restart it")
        return str(self._call("/sdapi/v1/options").get("sd_model_checkpoint"))

    def picture(self, prompt: Prompt, way: Way, method: Method, seed: int) -> Image.Image:
        """The picture that the WebUI makes.

        Raises :class:`AsynDMError` with what the WebUI said if it made none, or made it without
        AsynDM.
        """
        request = {
            "prompt": prompt.text,
            "seed": seed,
            "steps": way.steps,
            "cfg_scale": way.cfg,
            **self._size,
            "sampler_name": way.sampler,
            "scheduler": way.schedule,
            "alwayson_scripts": {"AsynDM": {"args": [_arguments(prompt, method)]}},
            **({} if way.eta is None else {"eta": way.eta}),
        }
        answer = self._call("/sdapi/v1/txt2img", request)
        said = json.loads(answer["info"])["extra_generation_params"].get("AsynDM messages", [])
        if said:
            raise AsynDMError(f"{prompt.text!r:.60}: {'; '.join(said)}")
        return Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).convert("RGB")

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        try:
            with self._opener.open(
                urllib.request.Request(self._url + path, data, self._headers), timeout=SECONDS
            ) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise AsynDMError(f"the WebUI at {self._url} refused {path} ({error.code}): {said:.200}") from error
        except (OSError, ValueError) as error:
            raise AsynDMError(f"no WebUI with --api answers at {self._url}: {error}") from error


def _arguments(prompt: Prompt, method: Method) -> dict[str, Any]:
    """AsynDM's settings for the API: those that differ from the default."""
    settings = method.settings
    if settings == SYNCHRONOUS:
        return {"enabled": False}
    own = {f.name: getattr(settings, f.name) for f in fields(settings) if getattr(settings, f.name) != f.default}
    return {**own, **({} if settings.whole_picture else {"targets": prompt.targets}), "enabled": True}
