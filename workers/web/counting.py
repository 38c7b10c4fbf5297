"""Counts and times every request by route. Plain ASGI: a middleware of the framework's kind costs a task group per request."""

from __future__ import annotations

import time
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..metrics import Metrics

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""A caller may send any word as its method: others are counted together, so that nobody can make new series."""


class CountRequests:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
                route = getattr(scope.get("route"), "path", "none")  # the template, never the raw path: labels stay bounded
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._metrics.http_requests.labels(route=route, method=method, status=str(message["status"])).inc()
                self._metrics.http_seconds.labels(route=route).observe(time.monotonic() - started)
            await send(message)

        await self._app(scope, receive, count)
