"""The answers of a WebUI without the extension."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from webui import Answer, WebUI


class Reference:
    """The WebUI without the extension, which works beside the other one."""

    def __init__(self, server: WebUI):
        self.server = server
        self._pool = ThreadPoolExecutor(1)
        self._answers: dict[str, Future[Answer]] = {}

    def __call__(self, request: dict[str, Any], kind: str = "txt2img", times: int = 1) -> Future[Answer]:
        """Its answer to ``request``, the last of ``times``. It is asked only once in a session."""
        key = repr((kind, sorted(request.items())))
        if key not in self._answers:
            self._answers[key] = self._pool.submit(self._make, request, kind, times)
        return self._answers[key]

    def _make(self, request: dict[str, Any], kind: str, times: int) -> Answer:
        for _ in range(times):
            answer = self.server.make(request, kind)
        return answer
