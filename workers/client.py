"""A small typed client of the HTTP API, for platforms that write Python: submit, wait, read, check a webhook. Needs httpx alone.

with VeriframeClient("https://veriframe.example", api_key=key) as veriframe:
veriframe.submit("vid_123", source="s3://uploads/vid_123.mp4")
outcome = veriframe.wait("vid_123", seconds=300)
print(outcome.verdict, outcome.p_fake, outcome.sentence)
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote

import httpx

from .errors import WorkerError
from .signatures import secret_bytes, verify

Word = Literal["authentic", "suspicious", "manipulated", "inconclusive"]
State = Literal["queued", "processing", "complete", "failed"]
_TRIES: Final = 4
_LONGEST_PAUSE_SECONDS: Final = 75.0
"""A full minute of the rate limit is waited out; what is back tomorrow only, as a quota, is told at once."""
_WAIT_SECONDS: Final = (0.5, 10.0)
"""First and longest pause between two looks at a video that is not finished."""


class ApiError(WorkerError):
    """Raised when the API refuses a request, or cannot be reached."""

    code = "API_REFUSED"

    def __init__(
        self, message: str, *, api_code: str, status: int | None = None, may_retry: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.api_code = api_code
        """The code that the API gave, or `UNREACHABLE`, `TIMEOUT`, `UNKNOWN_SCHEMA`."""
        self.status = status
        """HTTP status; None when there was no answer."""
        self.may_retry = may_retry
        """Whether the same request may succeed later."""
        self.retry_after_seconds = retry_after_seconds
        """When, if the service said so."""


class ForgedWebhookError(WorkerError):
    """Raised when a webhook's signature is wrong, missing, or older than five minutes."""

    code = "FORGED_WEBHOOK"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A video that the service has on record."""

    video_id: str
    job_id: str
    created: bool
    """False when the same video was submitted before and need not be tried again."""
    state: State = "queued"
    """Of its job: another than `queued` only when it was submitted before."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One `verdict/1` object. A failure is a state with a code, never a score."""

    video_id: str
    job_id: str | None
    state: State
    verdict: Word | None
    p_fake: float | None
    """Calibrated P(fake); None unless it was measured."""
    sentence: str | None
    reason_codes: tuple[str, ...]
    error_code: str | None
    retryable: bool
    """Whether the same file may be judged later; one that could not be fetched (`FETCH_*`) is tried again too when it is submitted again."""
    revision: int
    body: Mapping[str, Any] = field(repr=False)
    """The whole object."""

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.state in ("complete", "failed")

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Read a `verdict/1` object.

        Raises:
            ApiError: it is none.
        """
        with _reading("verdict/1 object"):
            if body["schema"] != "verdict/1":
                raise ApiError(f"expected schema 'verdict/1', got {body['schema']!r:.40}; update the client", api_code="UNKNOWN_SCHEMA")
            error, score = body.get("error") or {}, body.get("score") or {}
            return cls(
                video_id=body["video_id"],
                job_id=body.get("job_id"),
                state=body["state"],
                verdict=body.get("verdict"),
                p_fake=score.get("p_fake"),
                sentence=body.get("sentence"),
                reason_codes=tuple(body.get("reason_codes") or ()),
                error_code=error.get("code"),
                retryable=bool(error.get("retryable", False)),
                revision=body.get("revision", 1),
                body=body,
            )


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn what goes wrong while an answer is read into one typed error.

    Raises:
        ApiError: it is no such thing, so the address is another service's, or of a build that this client does not know.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise ApiError(f"the answer is no {what} ({type(err).__name__}: {err})", api_code="UNKNOWN_SCHEMA") from err


def read_webhook(
    body: bytes, *, headers: Mapping[str, str], secret: str, previous_secret: str | None = None, now: float | None = None
) -> Outcome:
    """Check a webhook of ours and read the outcome in it.

    Args:
        body: the raw request body, before any parsing.
        headers: of the request; names in any case.
        secret: the `whsec_...` secret that the service signs with.
        previous_secret: the one before, during a rotation.
        now: seconds since the epoch; the clock by default.

    Raises:
        ForgedWebhookError: do not trust it; answer 400.
        ApiError: it is signed but not of this schema.
    """
    keys = [secret_bytes(each) for each in (secret, previous_secret) if each is not None]
    if not verify(body, headers={name.lower(): value for name, value in headers.items()}, keys=keys, now=now):
        raise ForgedWebhookError("the webhook's signature does not fit its body, or it is older than five minutes")
    with _reading("CloudEvent with a verdict/1 object"):
        return Outcome.from_body(json.loads(body)["data"])


class VeriframeClient:
    """One service. Thread-safe as httpx is; use it as a context manager or call `close`."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        seconds: float = 10.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            base_url: of the API, `https://veriframe.example`.
            api_key: goes into `X-API-Key`.
            seconds: time limit of one request.
            transport: another httpx transport, for tests and proxies.
            sleep: how to pause between tries.
            clock: seconds that only grow, for the time limit of `wait`.
        """
        headers = {"X-API-Key": api_key} if api_key else {}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=seconds, transport=transport)
        self._sleep = sleep
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self,
        video_id: str,
        *,
        source: str | None = None,
        lane: Literal["urgent", "default", "bulk"] | None = None,
        callback_url: str | None = None,
        content_sha256: str | None = None,
        attributes: Mapping[str, str | int | float | bool | None] | None = None,
        idempotency_key: str | None = None,
    ) -> Accepted:
        """Hand a video over; when it returns, the video is safe. Sending the same twice is harmless: it is one job.

        One that failed with a `retryable` error is tried again when it is sent again, without its old `idempotency_key`.

        Raises:
            ApiError: refused, or the service stayed away for all tries.
        """
        request = {
            "video_id": video_id,
            "source": source,
            "lane": lane,
            "callback_url": callback_url,
            "content_sha256": content_sha256,
            "attributes": dict(attributes) if attributes else None,
        }
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        payload = {name: value for name, value in request.items() if value is not None}
        answer = self._ask("POST", "/v1/videos", json=payload, headers=headers)
        with _reading("answer to a submit"):
            return Accepted(video_id=answer["video_id"], job_id=answer["job_id"], created=answer["created"], state=answer["state"])

    def outcome(self, video_id: str) -> Outcome:
        """The newest outcome of a video, finished or not. Raises `ApiError`."""
        return self._look(video_id)

    def _look(self, video_id: str, *, until: float = math.inf) -> Outcome:
        return Outcome.from_body(self._ask("GET", f"/v1/videos/{quote(video_id, safe='')}", until=until))

    def wait(self, video_id: str, *, seconds: float = 600.0) -> Outcome:
        """Look until the video is finished; better still is a webhook.

        Args:
            video_id: which.
            seconds: how long; a look that began in time may take the time limit of one request longer.

        Raises:
            ApiError: it was not finished in time (`TIMEOUT`), or a look was refused.
        """
        until, pause = self._clock() + seconds, _WAIT_SECONDS[0]
        while True:
            outcome = self._look(video_id, until=until)
            if outcome.is_finished:
                return outcome
            left = until - self._clock()
            if left <= 0:
                raise ApiError(f"{video_id} is still {outcome.state} after {seconds:g} s", api_code="TIMEOUT", may_retry=True)
            self._sleep(min(pause, left))
            pause = min(_WAIT_SECONDS[1], pause * 1.5)

    def evidence(self, video_id: str) -> dict[str, Any]:
        """The `evidence/1` object of the newest outcome. Raises `ApiError`."""
        return self._ask("GET", f"/v1/videos/{quote(video_id, safe='')}/evidence")

    def verdicts(
        self,
        *,
        verdict: Word | Sequence[Word] = (),
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        p_fake_min: float | None = None,
        p_fake_max: float | None = None,
        video_id: str | None = None,
        video_id_prefix: str | None = None,
        content_sha256: str | None = None,
        bundle_set: str | None = None,
        reviewed: bool | None = None,
        page: int = 100,
    ) -> Iterator[Outcome]:
        """All verdicts that fit every filter, newest first, page by page.

        Args:
            verdict: one word, or any of several.
            created_from: written at or after; a time with its zone.
            created_to: written before.
            p_fake_min: score at or above; leaves out verdicts without a score.
            p_fake_max: score at or below.
            video_id: all revisions of one video.
            video_id_prefix: video IDs that begin so.
            content_sha256: of the file that was judged.
            bundle_set: what judged: `name@hash`, or one half of it.
            reviewed: whether people have decided on it.
            page: verdicts per request.

        Raises:
            ApiError: a filter is no filter, or the service stayed away for all tries.
        """
        given = {
            "limit": page,
            "verdict": [verdict] if isinstance(verdict, str) else list(verdict),
            "created_from": created_from.isoformat() if created_from else None,
            "created_to": created_to.isoformat() if created_to else None,
            "p_fake_min": p_fake_min,
            "p_fake_max": p_fake_max,
            "video_id": video_id,
            "video_id_prefix": video_id_prefix,
            "content_sha256": content_sha256,
            "bundle_set": bundle_set,
            "reviewed": reviewed,
        }
        filters: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        cursor: dict[str, int] = {}
        while True:
            answer = self._ask("GET", "/v1/verdicts", params=filters | cursor)
            with _reading("page of verdicts"):
                found, following = list(answer["verdicts"]), answer["next_cursor"]
            yield from map(Outcome.from_body, found)
            if following is None:
                return
            cursor = {"cursor": following}

    def _ask(self, method: str, path: str, *, until: float = math.inf, **options: Any) -> dict[str, Any]:
        """One request, tried again while the service says that it is busy or does not answer, but not after `until` of the clock."""
        for attempt in range(1, _TRIES + 1):
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError as err:
                error = ApiError(
                    f"no answer from {self._http.base_url.host} ({type(err).__name__})", api_code="UNREACHABLE", may_retry=True
                )
            else:
                if response.is_success:
                    with _reading("JSON object"):
                        return dict(response.json())
                error = _refusal(response)
                if response.status_code not in (429, 502, 503, 504):
                    raise error
            pause = 2.0 ** (attempt - 1) if error.retry_after_seconds is None else error.retry_after_seconds
            if attempt == _TRIES or pause > _LONGEST_PAUSE_SECONDS or self._clock() + pause > until:
                raise error
            self._sleep(pause)
        raise AssertionError("the last try returns or raises")


def _refusal(response: httpx.Response) -> ApiError:
    told = response.headers.get("retry-after", "")
    facts: dict[str, Any] = {"status": response.status_code, "retry_after_seconds": float(told) if told.isdecimal() else None}
    try:
        body = response.json()
        return ApiError(body["message"], api_code=body["code"], may_retry=bool(body["retryable"]), **facts)
    except (ValueError, KeyError, TypeError):
        return ApiError(f"the API answered {response.status_code}", api_code="HTTP_ERROR", **facts)
