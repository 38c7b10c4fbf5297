"""How much one tenant may take: requests per minute, counted where all API processes see it, and videos per day, counted in the ledger.

The minute slides: the previous minute's count weighs with the part of it that is still within sixty seconds. While the broker is
away each process counts for itself: a limiter must not be what keeps people from reading verdicts.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

import redis

from .errors import RateLimitedError
from .ledger import Ledger, TenantLimits
from .settings import Settings

_MINUTE: Final = 60.0
_LIMITS_SECONDS: Final = 5.0
"""Changed limits count after this time in every process."""
_PREFIX: Final = "veriframe.rate."
_ROUNDING: Final = 1e-6
"""A request that comes just when it was told to must not fail by the last digit of a float."""


class Limiter:
    """Limits of all tenants. Thread-safe."""

    def __init__(self, client: redis.Redis | None, ledger: Ledger, *, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Count in the broker, or in this process alone when `client` is None."""
        self._client = client
        self._ledger = ledger
        self._default = TenantLimits(settings.requests_per_minute, settings.videos_per_day)
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, TenantLimits]] = {}
        self._counts: dict[tuple[str, int], int] = {}

    def take(self, tenant: str) -> None:
        """Count one request.

        Raises:
            RateLimitedError: the tenant's minute is full; the request is not served and not counted. The error says when one has room again.
        """
        limit = self.limits_of(tenant).requests_per_minute or 0
        if limit <= 0:
            return
        minute, into = divmod(self._clock(), _MINUTE)
        before, now = self._count(tenant, int(minute))
        if before * (1 - into / _MINUTE) + now > limit + _ROUNDING:
            # else whoever asks a little too often would be refused for good: what is refused would fill the next minute
            before, served = self._count(tenant, int(minute), by=-1)
            raise RateLimitedError(
                f"more than {limit} requests within a minute: slow down, or ask the operator for more",
                retry_after_seconds=max(1, math.ceil(_room_at_seconds(limit, before=before, served=served) - into - _ROUNDING)),
            )

    def limits_of(self, tenant: str) -> TenantLimits:
        """The limits in force; those of the ledger win over those of the settings."""
        now = self._clock()
        with self._lock:
            known = self._known.get(tenant)
        if known is None or not 0 <= now - known[0] < _LIMITS_SECONDS:
            own = self._ledger.limits_of(tenant)
            known = (
                now,
                TenantLimits(
                    self._default.requests_per_minute if own.requests_per_minute is None else own.requests_per_minute,
                    self._default.videos_per_day if own.videos_per_day is None else own.videos_per_day,
                ),
            )
            with self._lock:
                self._known[tenant] = known
        return known[1]

    def _count(self, tenant: str, minute: int, *, by: int = 1) -> tuple[int, int]:
        """(requests of the minute before, requests of this minute with this one); `by=-1` takes one back."""
        if self._client is not None:
            try:
                pipe = self._client.pipeline(transaction=False)
                pipe.get(f"{_PREFIX}{tenant}.{minute - 1}")
                pipe.incrby(f"{_PREFIX}{tenant}.{minute}", by)  # for -1 too: an API may not DECR
                pipe.expire(f"{_PREFIX}{tenant}.{minute}", 150)
                before, now, _ = pipe.execute()
                return int(before or 0), int(now)
            except (redis.RedisError, OSError):
                pass  # counted below instead
        with self._lock:
            self._counts = {key: count for key, count in self._counts.items() if key[1] >= minute - 1}
            self._counts[tenant, minute] = self._counts.get((tenant, minute), 0) + by
            return self._counts.get((tenant, minute - 1), 0), self._counts[tenant, minute]


def _room_at_seconds(limit: int, *, before: int, served: int) -> float:
    """When the next request has room, in seconds since this minute began: `before` of the minute before it, `served` in it."""
    if served < limit:  # before * (1 - t / 60) + served + 1 == limit
        return _MINUTE * max(0.0, 1 - (limit - served - 1) / max(1, before))
    return _MINUTE + _MINUTE * (1 - (limit - 1) / served)  # in the next minute, of which this one is the minute before
