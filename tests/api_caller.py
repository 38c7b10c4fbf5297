"""The HTTP application on a real ledger, called without a socket."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

import httpx

from workers.broker import MemoryDispatcher
from workers.intake import Intake
from workers.ledger import Ledger
from workers.metrics import Metrics
from workers.services import Control
from workers.settings import Settings
from workers.web.app import create_app

SUBMIT_KEY, READ_KEY, ADMIN_KEY = "submit-secret", "read-secret", "admin-secret"
KEYS = tuple(
    f"{scope}:{hashlib.sha256(key.encode()).hexdigest()}"
    for scope, key in (("submit", SUBMIT_KEY), ("read", READ_KEY), ("admin", ADMIN_KEY))
)


@dataclass
class ApiCaller:
    """One application."""

    app: object
    dispatcher: MemoryDispatcher

    def transport(self) -> httpx.ASGITransport:
        """For a client of the application."""
        return httpx.ASGITransport(app=self.app, raise_app_exceptions=False)  # type: ignore[arg-type]

    def call(self, method: str, path: str, **options) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.transport(), base_url="http://localhost") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options) -> httpx.Response:
        return self.call("GET", path, **options)

    def post(self, path: str, **options) -> httpx.Response:
        return self.call("POST", path, **options)


def make_caller(ledger: Ledger, **settings) -> ApiCaller:
    made = Settings(**settings)
    dispatcher, metrics = MemoryDispatcher(), Metrics()
    intake = Intake(ledger, dispatcher, metrics=metrics, resend_seconds=30, backlog_limit=made.backlog_limit)
    return ApiCaller(create_app(Control(made, None, ledger, dispatcher, intake, metrics, "owner")), dispatcher)


def assert_typed(answer: httpx.Response, status: int, code: str) -> None:
    """An error answer in our shape."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"code", "message", "retryable"}
    assert body["code"] == code
