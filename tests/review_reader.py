"""Somebody who reads the review pages without a browser and without scripts."""

from __future__ import annotations

import asyncio
import hashlib
import re

import httpx

from api_caller import KEYS, ApiCaller
from verdict_builders import put_verdict
from workers.ledger import Ledger

REVIEW_KEY = "review-secret"
ALL_KEYS = (*KEYS, f"review:{hashlib.sha256(REVIEW_KEY.encode()).hexdigest()}")
SECRET = "s" * 40


class Person:
    """Somebody with a cookie jar and no scripts."""

    def __init__(self, api: ApiCaller) -> None:
        self.api, self.cookies = api, httpx.Cookies()

    def call(self, method: str, path: str, **options) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.api.transport(), base_url="http://localhost", cookies=self.cookies) as client:
                answer = await client.request(method, "/review" + path, **options)
                self.cookies = client.cookies
                return answer

        return asyncio.run(send())

    def get(self, path: str, **options) -> httpx.Response:
        return self.call("GET", path, **options)

    def send(self, path: str, *, csrf: str | None = None, **fields) -> httpx.Response:
        """Send a form as the page would, with the token that stands in the pages."""
        if csrf is None:
            csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get("/preferences").text)[1]
        return self.call("POST", path, data={"csrf": csrf, **fields})


def sign_in(api: ApiCaller, ledger: Ledger, name: str = "ana") -> Person:
    person = Person(api)
    answer = person.call("POST", f"/login/{ledger.make_login(name, seconds=60)}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/review/")
    return person


def item_of(ledger: Ledger, video_id: str) -> int:
    return ledger.review_item_of(video_id).verdict_seq


def put(ledger: Ledger, video_id: str = "vid_1", **options) -> int:
    put_verdict(ledger, video_id, **options)
    return item_of(ledger, video_id)
