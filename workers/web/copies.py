"""Private copies of videos from a bucket or an https host, for the player: fetched like a screening's, checked, and kept for minutes.

The guard, the allow-lists and the time budget of workers' fetches hold; what the page shows has the hash of what was judged. Copies are
files without a name, together within `VERIFRAME_REVIEW_COPY_BYTES`. They are fetched by threads of their own, few at a time: people who
wait for a slow store must not hold up the pages of others.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import structlog

from ..errors import FetchTooLargeError, MediaChangedError, MediaGoneError, SourceNotAllowedError, WorkerError
from ..settings import Settings
from ..sources import ConfiguredSources
from .media import CHANGED, ELSEWHERE, GONE, Media, Remote

log = structlog.get_logger(__name__)
_KEEP_SECONDS: Final = 900.0
_SWEEP_SECONDS: Final = 60.0
_REFUSAL_SECONDS: Final = 10.0
"""A player asks several times in a row: the store is asked once."""
_MAX_AT_ONCE: Final = 2
_MAX_WAITING: Final = 16

AWAY: Final = (
    "The store of the video does not answer just now. Load the page again in a moment. The verdict and what it rests on are shown."
)
BUSY: Final = "Too many videos are being fetched just now. Load the page again in a moment."
TOO_LARGE: Final = "The video is too large to be fetched for this page. The verdict and what it rests on are shown."
_REASONS: Final[dict[type[WorkerError], str]] = {
    FetchTooLargeError: TOO_LARGE,
    MediaChangedError: CHANGED,
    MediaGoneError: GONE,
    SourceNotAllowedError: ELSEWHERE,
}


@dataclass(slots=True)
class _Copy:
    future: Future[Media | str] = field(default_factory=Future)
    used_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # one who stops waiting must not take it from the others

    @property
    def is_stale(self) -> bool:
        if not self.future.done():
            return False
        keeps = _REFUSAL_SECONDS if isinstance(self.future.result(), str) else _KEEP_SECONDS
        return time.monotonic() - self.used_at > keeps

    @property
    def num_bytes(self) -> int:
        found = self.future.result() if self.future.done() else None
        return found.num_bytes if isinstance(found, Media) else 0

    def close(self) -> None:
        """Free the disk, once the last answer that reads it is sent."""
        found = self.future.result()
        if isinstance(found, Media):
            found.close()


class Copies:
    """The copies of one API process."""

    def __init__(self, settings: Settings) -> None:
        # two on their way and what is kept never take more than the budget together
        self._keep_bytes = settings.review_copy_bytes // 2
        one = max(1, min(settings.fetch_max_bytes, self._keep_bytes // _MAX_AT_ONCE))
        self._sources = ConfiguredSources(settings.model_copy(update={"fetch_max_bytes": one}))
        # by location and hash: the same address may hold another file for another revision
        self._copies: dict[tuple[str, str | None], _Copy] = {}
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(_MAX_AT_ONCE)
        self._sweeper: threading.Timer | None = None

    async def open(self, remote: Remote, *, content_sha256: str | None) -> Media | str:
        """The copy of one video, fetched when there is none; or a sentence why it cannot be shown."""
        with self._lock:
            self._drop_stale()
            key = (remote.location, content_sha256)
            copy = self._copies.get(key)
            if copy is None:
                if sum(not each.future.done() for each in self._copies.values()) >= _MAX_WAITING:
                    return BUSY
                copy = self._copies[key] = _Copy()
                threading.Thread(target=self._fetch, args=(copy, remote, content_sha256), name="review-copy", daemon=True).start()
        found = await asyncio.wrap_future(copy.future)
        if isinstance(found, str):
            return found
        with self._lock:
            if not found.close.alive:  # let go of between the two lines above
                return BUSY
            copy.used_at = time.monotonic()
            return Media(os.dup(found.descriptor), num_bytes=found.num_bytes, content_type=remote.content_type)

    def _fetch(self, copy: _Copy, remote: Remote, content_sha256: str | None) -> None:
        with self._turns:
            found = self._fetched(remote, content_sha256)
        with self._lock:
            copy.used_at = time.monotonic()
            copy.future.set_result(found)
            self._make_room()
            self._sweep_later()

    def _fetched(self, remote: Remote, content_sha256: str | None) -> Media | str:
        try:
            fetched = self._sources.fetch(remote.video_id, source=remote.location, content_sha256=content_sha256, cancel=threading.Event())
        except WorkerError as err:
            log.info("video_not_shown", video_id=remote.video_id, code=err.code)
            return next((reason for cls, reason in _REASONS.items() if isinstance(err, cls)), AWAY)
        except Exception:  # a full disk, a library's bug: the page stands without pictures
            log.exception("video_not_shown", video_id=remote.video_id)
            return AWAY
        copy = Media(os.dup(fetched.file.fileno()), num_bytes=fetched.num_bytes, content_type=remote.content_type)
        fetched.close()
        return copy

    def sweep(self) -> None:
        """Let go of what nobody looked at for long, also when nobody looks at anything any more."""
        with self._lock:
            self._sweeper = None
            self._drop_stale()
            if self._copies:
                self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = threading.Timer(_SWEEP_SECONDS, _sweep, [weakref.ref(self)])
            self._sweeper.daemon = True
            self._sweeper.start()

    def _drop_stale(self) -> None:
        for key in [key for key, copy in self._copies.items() if copy.is_stale]:
            self._copies.pop(key).close()

    def _make_room(self) -> None:
        """Let go of what was not looked at for longest, until the rest fits."""
        by_age = sorted((key for key, copy in self._copies.items() if copy.num_bytes), key=lambda key: self._copies[key].used_at)
        total = sum(copy.num_bytes for copy in self._copies.values())
        for key in by_age[:-1]:
            if total <= self._keep_bytes:
                return
            copy = self._copies.pop(key)
            total -= copy.num_bytes
            copy.close()


def _sweep(copies: weakref.ref[Copies]) -> None:
    found = copies()
    if found is not None:
        found.sweep()
