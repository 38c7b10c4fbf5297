"""Fair micro-batcher: many videos feed one device, the one that has had least of it goes first.

Every caller is a video's own thread. Items of different videos share batches; one thread runs them, so the device
has one owner. Each video has a clock that runs while the device works for it; a new one starts where the clocks of
the others are, so nobody can be starved by newcomers, and a video with 10,000 faces waits for itself alone
(start-time fair queueing: Goyal, Vin and Cheng 1996). The clock of one that had more than an ordinary video needs runs
faster; while ordinary ones are screened its batches are short and it rests after each, so that the device is mostly free when they ask. A batch that fails is
split until the guilty item stands alone; its neighbours get their results.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .errors import DetectorError, OptionError, ScreeningCancelled

_AHEAD_SECONDS: Final = 0.25
"""How much more of the device a video may have had and still fill up the batches of others."""
_HEAVY_SECONDS: Final = 0.5
"""Device time beyond which a video is heavy: about that of the whole look at one face on two slow cores."""
_HEAVY_PRICE: Final = 4
"""How much faster the clock of a heavy video runs."""
_HEAVY_BATCH_SECONDS: Final = 0.05
"""About how long its batches last while ordinary ones are screened: a batch cannot be interrupted."""
_HEAVY_REST: Final = 2.0
"""How long it then rests after a batch, in lengths of that batch: one alone gets a third of the device at most."""
_LATELY_SECONDS: Final = 1.0
"""A video that asked nothing for so long is being decoded or is over."""
_ROOM_FOR: Final = 8
"""Videos that fit into the room for waiting items at least: if one could fill it, the others could not even ask."""
RunBatch = Callable[[list[Any]], Sequence[Any]]
"""Items in, one result per item out, in order."""


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What one batch did, for metrics."""

    lane: str
    num_items: int
    max_batch: int
    oldest_wait_seconds: float
    run_seconds: float
    num_failed: int
    cpu_seconds: float = 0.0
    """CPU time of the device thread; torch's own pool of threads is not in it."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Share:
    """One video's part of the device."""

    seconds: float = 0.0
    """Its clock: device time it has had, counted from where the others were when it came."""
    had_seconds: float = 0.0
    """Device time it has had in all."""
    item_seconds: dict[str, float] = field(default_factory=dict)
    """Lane -> what one of its items took in its last batch."""
    asked_at: float = 0.0
    """`time.monotonic()` of its newest request."""
    rests_until: float = 0.0
    """`time.monotonic()` before which it is not served while ordinary ones are screened."""
    num_waiting: int = 0
    """Its items that wait now, in all lanes."""

    @property
    def is_heavy(self) -> bool:
        """Whether it had more than an ordinary video needs."""
        return self.had_seconds > _HEAVY_SECONDS

    def charge(self, seconds: float) -> None:
        """Count device time."""
        self.seconds += seconds * (_HEAVY_PRICE if self.is_heavy else 1)
        self.had_seconds += seconds


@dataclass(slots=True, eq=False)
class _Item:
    payload: Any
    enqueued: float
    submission: _Submission
    share: Share
    result: Any = None
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class _Submission:
    pending: int
    deadline: float
    cancel: threading.Event | None
    finished: threading.Event = field(default_factory=threading.Event)
    abandoned: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nobody will take the results: the screening failed, was cancelled or is too late."""
        return self.abandoned or (self.cancel is not None and self.cancel.is_set()) or time.monotonic() > self.deadline


class Pending:
    """Queued items; call it to wait for their results, in order, or `abandon` them. Raises as `MicroBatcher.submit`."""

    def __init__(self, lane: str, items: Sequence[_Item], submission: _Submission) -> None:
        self._lane = lane
        self._items = items
        self._submission = submission

    def __call__(self) -> list[Any]:
        try:
            while not self._submission.finished.wait(0.1):
                _check(self._submission.deadline, self._submission.cancel, self._lane)
        except BaseException:
            self.abandon()
            raise
        for item in self._items:
            if item.error is not None:
                raise item.error
        return [item.result for item in self._items]

    def abandon(self) -> None:
        """Nobody will ask for the results any more: what has not begun is not run."""
        self._submission.abandoned = True


@dataclass(slots=True)
class _Lane:
    run: RunBatch
    max_batch: int
    waiting: deque[_Item] = field(default_factory=deque)


def _turn(item: _Item) -> tuple[float, float]:
    """Who goes first: the video that has had least of the device, then the older item."""
    return item.share.seconds, item.enqueued


def _check(deadline: float, cancel: threading.Event | None, lane: str) -> None:
    if cancel is not None and cancel.is_set():
        raise ScreeningCancelled(f"the screening was cancelled while it waited for {lane}")
    if time.monotonic() > deadline:
        raise DetectorError(f"{lane} did not answer before the screening's deadline; the video will be tried again")


class MicroBatcher:
    """Batches across videos for one device. Start one per device and process."""

    def __init__(
        self, *, max_waiting: int = 4096, gather_seconds: float = 0.0, on_batch: Callable[[BatchReport], None] | None = None
    ) -> None:
        """Start the device thread.

        Args:
            max_waiting: items that may wait in all lanes together, an eighth of them of one video; beyond, `submit` blocks (back-pressure).
            gather_seconds: how long a batch that is not full may wait for company; 0 suits a CPU.
            on_batch: called after every batch, in the device thread.

        Raises:
            OptionError: `max_waiting` is not positive.
        """
        if max_waiting <= 0:
            raise OptionError(f"max_waiting must be positive, got {max_waiting}")
        self._max_waiting = max_waiting
        self._max_of_one = max(1, max_waiting // _ROOM_FOR)
        self._gather_seconds = gather_seconds
        self._on_batch = on_batch
        self._lanes: dict[str, _Lane] = {}
        self._state = threading.Condition()
        self._num_waiting = 0
        self._served_seconds = 0.0
        self._shares: weakref.WeakSet[Share] = weakref.WeakSet()
        """Of the videos that are being screened now."""
        self._closed = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._loop, name="device", daemon=True)
        self._thread.start()

    def add_lane(self, name: str, run: RunBatch, *, max_batch: int) -> None:
        """Register a model under `name`."""
        with self._state:
            self._lanes[name] = _Lane(run=run, max_batch=max_batch)

    @property
    def num_waiting(self) -> int:
        """Items that wait now: the starvation gauge."""
        return self._num_waiting

    @property
    def busy_seconds(self) -> float:
        """How long the running batch has been running; 0 when the device is idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def submit(
        self, lane: str, payloads: Sequence[Any], *, deadline: float, cancel: threading.Event | None = None, share: Share | None = None
    ) -> list[Any]:
        """Have `payloads` run and wait for their results, in order.

        Args:
            lane: name given to `add_lane`.
            payloads: items; they may end up in several batches beside other videos' items.
            deadline: `time.monotonic()` beyond which the caller gives up.
            cancel: checked while waiting.
            share: of the video that asks; without one the items count as a video of their own.

        Raises:
            DetectorError: an item failed alone, or the deadline passed.
            ScreeningCancelled: `cancel` was set.
        """
        return self.start(lane, payloads, deadline=deadline, cancel=cancel, share=share)()

    def start(
        self, lane: str, payloads: Sequence[Any], *, deadline: float, cancel: threading.Event | None = None, share: Share | None = None
    ) -> Pending:
        """Queue `payloads` and return at once; call what is returned to wait for the results. Arguments and errors as for `submit`."""
        now = time.monotonic()
        submission = _Submission(pending=len(payloads), deadline=deadline, cancel=cancel)
        if not payloads:
            submission.finished.set()
            return Pending(lane, (), submission)
        _check(deadline, cancel, lane)
        share = share or Share()
        with self._state:
            share.seconds = max(share.seconds, self._served_seconds)
            share.asked_at = now
            self._shares.add(share)
        items = [_Item(payload=payload, enqueued=now, submission=submission, share=share) for payload in payloads]
        pending = Pending(lane, items, submission)
        try:
            self._enqueue(lane, items, deadline=deadline, cancel=cancel)
        except BaseException:
            pending.abandon()
            raise
        return pending

    def close(self) -> None:
        """Stop the device thread after the running batch; waiting callers get an error."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        self._thread.join(timeout=30)

    def _enqueue(self, lane: str, items: list[_Item], *, deadline: float, cancel: threading.Event | None) -> None:
        for item in items:
            with self._state:
                while not self._closed and (self._num_waiting >= self._max_waiting or item.share.num_waiting >= self._max_of_one):
                    self._state.wait(0.1)
                    _check(deadline, cancel, lane)
                if self._closed:
                    raise DetectorError(f"the engine was closed while {lane} was asked; the video will be tried again")
                self._lanes[lane].waiting.append(item)
                self._num_waiting += 1
                item.share.num_waiting += 1
                self._state.notify_all()

    def _loop(self) -> None:
        while True:
            with self._state:
                while not self._closed and (pause := self._until_something_is_due()) != 0:
                    self._state.wait(pause)
                if self._closed:
                    self._fail_waiting()
                    return
            if self._gather_seconds:
                self._gather()
            self._serve()

    @property
    def _heavy_give_way(self) -> bool:
        """Whether an ordinary video used the device a moment ago; heavy ones among themselves have it to the full."""
        lately = time.monotonic() - _LATELY_SECONDS
        return any(not share.is_heavy and share.asked_at > lately for share in self._shares)

    def _until_something_is_due(self) -> float | None:
        """Seconds until an item may be served, 0 when one may be now; None when nothing waits."""
        if self._num_waiting == 0:
            return None
        if not self._heavy_give_way:
            return 0
        earliest = min(item.share.rests_until for lane in self._lanes.values() for item in lane.waiting)
        return max(0.0, earliest - time.monotonic())

    def _serve(self) -> None:
        """One batch; nothing of it is held on to, so that a video that is over counts no more."""
        with self._state:
            taken = self._take()
        if taken is not None:
            self._run(*taken)

    def _gather(self) -> None:
        """Give a batch that is not full a moment to fill."""
        until = time.monotonic() + self._gather_seconds
        with self._state:
            while not self._closed and all(len(lane.waiting) < lane.max_batch for lane in self._lanes.values()):
                remaining = until - time.monotonic()
                if remaining <= 0:
                    return
                self._state.wait(remaining)

    def _take(self) -> tuple[str, _Lane, list[_Item]] | None:
        """The lane of the item that is to go first, and what shares a batch with it; None when none may go now."""
        now = time.monotonic()
        heavy_give_way = self._heavy_give_way
        due = {n: [item for item in each.waiting if not heavy_give_way or item.share.rests_until <= now] for n, each in self._lanes.items()}
        first = min(((n, min(items, key=_turn)) for n, items in due.items() if items), key=lambda pair: _turn(pair[1]), default=None)
        if first is None:
            return None
        name, lane = first[0], self._lanes[first[0]]
        ordered = sorted(due[name], key=_turn)
        self._served_seconds = max(self._served_seconds, ordered[0].share.seconds)
        limit = ordered[0].share.seconds + _AHEAD_SECONDS
        most = lane.max_batch
        if ordered[0].share.is_heavy and heavy_give_way:
            most = min(most, max(1, int(_HEAVY_BATCH_SECONDS / ordered[0].share.item_seconds.get(name, _HEAVY_BATCH_SECONDS))))
        taken: list[_Item] = []
        batch: list[_Item] = []
        for item in ordered:
            # a video far ahead of the others does not make their batches longer
            if len(batch) == most or (batch and item.share.seconds > limit):
                break
            taken.append(item)
            item.share.num_waiting -= 1
            if not item.submission.is_over:
                batch.append(item)
        gone = set(map(id, taken))
        lane.waiting = deque(item for item in lane.waiting if id(item) not in gone)
        self._num_waiting -= len(taken)
        self._state.notify_all()
        return (name, lane, batch) if batch else None

    def _run(self, name: str, lane: _Lane, batch: list[_Item]) -> None:
        started, cpu_started = time.monotonic(), time.thread_time()
        self._busy_since = started
        self._run_isolating(name, lane, batch)
        self._busy_since = None
        spent = time.monotonic() - started
        with self._state:
            present = {id(item.share) for item in batch} | {id(item.share) for each in self._lanes.values() for item in each.waiting}
            # the clock of newcomers goes on as well: however many come, those who wait get their turn
            self._served_seconds += spent / len(present)
            for item in batch:
                item.share.charge(spent / len(batch))
            for share in {id(item.share): item.share for item in batch}.values():
                share.item_seconds[name] = spent / len(batch)
                if share.is_heavy:
                    share.rests_until = time.monotonic() + _HEAVY_REST * spent
        if self._on_batch is not None:
            self._on_batch(
                BatchReport(
                    lane=name,
                    num_items=len(batch),
                    max_batch=lane.max_batch,
                    oldest_wait_seconds=started - min(item.enqueued for item in batch),
                    run_seconds=spent,
                    num_failed=sum(item.error is not None for item in batch),
                    cpu_seconds=time.thread_time() - cpu_started,
                )
            )
        for item in batch:
            item.submission.pending -= 1
            if item.submission.pending == 0:
                item.submission.finished.set()

    def _run_isolating(self, name: str, lane: _Lane, batch: list[_Item]) -> None:
        """Run `batch`; when it raises, halve it until the item that cannot be run stands alone."""
        try:
            results = lane.run([item.payload for item in batch])
            if len(results) != len(batch):
                raise DetectorError(f"{name} gave {len(results)} results for {len(batch)} items; the video will be tried again")
        except Exception as err:
            if len(batch) > 1:
                middle = len(batch) // 2
                self._run_isolating(name, lane, batch[:middle])
                self._run_isolating(name, lane, batch[middle:])
            else:
                batch[0].error = (
                    err
                    if isinstance(err, DetectorError)
                    else DetectorError(f"{name} failed on one item ({type(err).__name__}: {err}); the video will be tried again")
                )
            return
        for item, result in zip(batch, results, strict=True):
            item.result = result

    def _fail_waiting(self) -> None:
        for name, lane in self._lanes.items():
            while lane.waiting:
                item = lane.waiting.popleft()
                self._num_waiting -= 1
                item.error = DetectorError(f"the engine was closed while {name} was asked; the video will be tried again")
                item.submission.pending -= 1
                if item.submission.pending == 0:
                    item.submission.finished.set()
