"""Submits that arrive while the ledger is busy share its next transaction.

A quiet API writes each submit by itself, at once. Under load what waits is written together: one transaction and one trip to the
broker for many requests, so that the ledger sets the batch and not the rate. Each caller still hears after its own row is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..errors import BacklogFullError, BrokerError, LedgerError
from ..ledger import Submission, Submitted
from .auth import ApiKey

MAX_BATCH: Final = 256

_CONCERNS_ALL: Final = (BrokerError, LedgerError, BacklogFullError)
"""Asking again for each caller would only make each wait for the same dead server."""

Accept = Callable[[list[Submission], ApiKey], list[Submitted]]


@dataclass(slots=True)
class _Waiting:
    submission: Submission
    key: ApiKey
    done: asyncio.Future[Submitted]


class Gather:
    """Writes submits of one event loop, together where they wait anyway."""

    def __init__(self, accept: Accept) -> None:
        """Write through `accept`, which takes all or none and is called in a thread."""
        self._accept = accept
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, submission: Submission, key: ApiKey) -> Submitted:
        """Take one submission in. Raises what `accept` raises for it."""
        done: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(submission, key, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await done

    async def _write(self) -> None:
        while self._waiting:
            first = self._waiting[0].key
            batch = [each for each in self._waiting if each.key == first][:MAX_BATCH]
            taken = set(map(id, batch))
            self._waiting = [each for each in self._waiting if id(each) not in taken]
            await self._write_batch(batch)

    async def _write_batch(self, batch: list[_Waiting]) -> None:
        try:
            outcomes = await asyncio.to_thread(self._accept, [each.submission for each in batch], batch[0].key)
        except Exception as err:  # belongs to the callers, whatever it is
            if len(batch) > 1 and not isinstance(err, _CONCERNS_ALL):
                for each in batch:  # one of them is at fault: each hears about itself
                    await self._write_batch([each])
                return
            for each in batch:
                if not each.done.done():
                    each.done.set_exception(err)
            return
        for each, outcome in zip(batch, outcomes, strict=True):
            if not each.done.done():  # a caller may have gone
                each.done.set_result(outcome)
