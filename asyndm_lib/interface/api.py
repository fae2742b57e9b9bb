"""Our own HTTP endpoints, and a check of the settings that the host's API is sent.

``GET /asyndm/v1/schema`` is there with the host's API; ``POST /asyndm/v1/tokens`` with the API or
the page. Each is guarded as the host guards its own: by ``--api-auth`` with the API, by
``--gradio-auth`` with the page alone. The page asks ``POST /internal/asyndm-tokens``, as it cannot
know the API's password.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.dependencies.utils import get_parameterless_sub_dependant
from starlette.concurrency import run_in_threadpool

from ..errors import AsynDMError, SettingsError, Unsupported, fault
from ..prompt.report import match
from ..prompt.target_list import MAX_LENGTH
from ..settings.schema import schema
from . import arguments

if TYPE_CHECKING:  # it imports what a WebUI that is not supported may lack
    from ..hosts.common.adapter import Adapter

PICTURE_REQUESTS = ("/sdapi/v1/txt2img", "/sdapi/v1/img2img")
MAX_BYTES = 256 * 1024
MAX_PROMPT = 8000
"""The most characters of a prompt."""
MAX_STYLES = 100
MAX_STEPS = 150
SECONDS = 5.0
"""How long the reading of a prompt may take."""


def mount(host: Adapter, demo: Any, app: FastAPI) -> None:
    """Add the endpoints to the ``app`` of the WebUI ``host``. ``demo``: its page, or None."""
    ours = [route for route in app.routes if getattr(route, "path", None) in PICTURE_REQUESTS]
    login = [route for route in app.routes if getattr(route, "path", None) == "/login_check"]
    for route in ours:
        checked = get_parameterless_sub_dependant(depends=Depends(_refuse_wrong_settings), path=route.path_format)
        route.dependant.dependencies.append(checked)  # after the host's own, its password among them

    tokens = _tokens(host)
    page = [Depends(login[0].endpoint)] if demo is not None and login else None
    api = ours[0].dependencies if ours else None
    if api is not None:
        app.add_api_route("/asyndm/v1/schema", schema, methods=["GET"], dependencies=api)
    for path, guard in (("/asyndm/v1/tokens", page if api is None else api), ("/internal/asyndm-tokens", page)):
        if guard is not None:
            app.add_api_route(path, tokens, methods=["POST"], dependencies=guard)


async def _refuse_wrong_settings(request: Request) -> None:
    try:
        body = await request.json()  # the host has read it already
        await run_in_threadpool(arguments.check, body)  # a mask may take a moment
    except AsynDMError as error:
        raise HTTPException(422, f"AsynDM: {error}") from None
    except Exception:
        return  # no JSON: the host says so. And a fault of ours is told with the picture


def _tokens(host: Adapter) -> Callable[[Request], Any]:
    turn = asyncio.Lock()  # one at a time, so that a picture that is being made hardly waits

    async def tokens(request: Request) -> dict[str, Any]:
        """The tokens of a prompt that stand for its targets (see :func:`prompt.report.match`)."""
        try:
            question = _question(await _body(request))
        except SettingsError as error:
            raise HTTPException(422, str(error)) from None
        async with turn:
            return await run_in_threadpool(_answer, host, **question)

    return tokens


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"The request is longer than {MAX_BYTES} bytes")
    return body


def _question(body: bytes) -> dict[str, Any]:
    """The question, checked. Raises :class:`SettingsError` that names what is wrong."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise SettingsError("the request is not JSON") from None
    if not isinstance(given, dict):
        raise SettingsError('the request must be an object, as {"prompt": "a cat", "targets": "cat"}')
    question = {"targets": "", "steps": 20, "styles": [], **given}
    if unknown := question.keys() - {"prompt", "targets", "steps", "styles"}:
        raise SettingsError(f"unknown: {min(unknown)!r:.80}; known are prompt, targets, steps and styles")
    for name, limit in (("prompt", MAX_PROMPT), ("targets", MAX_LENGTH)):
        text = question.get(name)
        if not isinstance(text, str):
            raise SettingsError(f"{name} must be text, not {text!r:.80}")
        if arguments.has_half_characters(text):
            raise SettingsError(f"{name} holds half a character")
        if len(text) > limit:
            raise SettingsError(f"{name} is {len(text)} characters long; at most {limit} are read")
    steps, styles = question["steps"], question["styles"]
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= MAX_STEPS:
        raise SettingsError(f"steps must be a whole number from 1 to {MAX_STEPS}, not {steps!r:.80}")
    if not isinstance(styles, list) or len(styles) > MAX_STYLES or not all(isinstance(s, str) for s in styles):
        raise SettingsError(f"styles must be a list of at most {MAX_STYLES} names")
    return question


def _answer(host: Adapter, prompt: str, targets: str, steps: int, styles: Sequence[str]) -> dict[str, Any]:
    end = time.monotonic() + SECONDS
    try:
        typed = host.typed_prompt(prompt, steps, styles)

        def tokenize(text: str) -> Any:
            if time.monotonic() > end:
                raise HTTPException(422, f"The prompt takes longer than {SECONDS:g} seconds to read")
            return typed.tokenize(text)

        return match(typed.parts, targets, typed.tags, tokenize, typed.chunk)
    except Unsupported as error:
        raise HTTPException(503, str(error)) from None
    except SettingsError as error:
        raise HTTPException(422, str(error)) from None
    except HTTPException:
        raise
    except Exception as error:
        raise HTTPException(500, str(fault(error))) from None
