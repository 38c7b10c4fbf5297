"""Around every route, pages included: bodies that end, and headers that tell browsers to stay out."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import error_response

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""For answers that set none of their own: the API's JSON. Pages bring their own content policy."""
_TRANSPORT: Final = "max-age=31536000; includeSubDomains"


class Guard:
    """ASGI middleware; the outermost one."""

    def __init__(self, app: ASGIApp, *, body_limit_bytes: int) -> None:
        self._app = app
        self._limit = body_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, limit=self._limit)
        if not exchange.is_excess:
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except Exception:
                if not exchange.is_excess:
                    raise
        if exchange.is_excess:
            refusal = error_response(413, code="BODY_TOO_LARGE", message=f"a body may take {self._limit} bytes", retryable=False)
            await refusal(scope, receive, exchange.answer)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, limit: int) -> None:
        announced = Headers(scope=scope).get("content-length", "0")
        self.is_excess = not announced.isdecimal() or int(announced) > limit
        self._scope, self._receive, self._send = scope, receive, send
        self._limit = limit
        self._received = 0
        self._answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._limit and not self._answered:
            self.is_excess = True  # whatever the route makes of a caller that is gone, the answer is a 413
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """What the route answers; dropped once the body was too long."""
        if not self.is_excess:
            await self.answer(message)

    async def answer(self, message: Message) -> None:
        """Send with the headers that were not set."""
        self._answered = True
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self._scope.get("scheme") == "https":
                headers.setdefault("Strict-Transport-Security", _TRANSPORT)
        await self._send(message)
