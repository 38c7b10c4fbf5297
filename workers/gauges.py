"""The gauges of the queue: lengths, ages, running videos and the work left. Set by ONE process, the leading janitor."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

import redis
import structlog

from .broker import translated
from .errors import BrokerError
from .forecast import CostModel, MediaSums, fit
from .ledger import Ledger
from .messages import INBOX_LANES, inbox_lists
from .metrics import Metrics

log = structlog.get_logger(__name__)
_LEARN_SECONDS: Final = 60.0
_SAMPLES: Final = 200
_COUNT_SECONDS: Final = 60.0
_SHARE: Final = 0.02
"""At most this share of the janitor's time goes into adding up the backlog, however long it is."""


class QueueGauges:
    """Reads ledger and inbox, sets the gauges."""

    def __init__(self, ledger: Ledger, *, client: redis.Redis | None, metrics: Metrics) -> None:
        self._ledger = ledger
        self._client = client
        self._metrics = metrics
        self.model = CostModel()
        self._reviews_read: int | None = None  # decisions from before this process are in its predecessor's counter
        self._learn_at = self._work_at = self._count_at = float("-inf")

    def set_all(self) -> None:
        """One look. Raises `LedgerUnavailableError`."""
        facts = self._ledger.queue_facts()
        inbox = self._inbox_lengths()
        metrics = self._metrics
        for lane in INBOX_LANES:
            metrics.queue_length.labels(queue=lane).set(facts.queued.get(lane, 0) + inbox.get(lane, 0))
            metrics.queue_oldest_seconds.labels(queue=lane).set(facts.oldest_age_seconds.get(lane, 0.0))
            metrics.queue_in_flight.labels(queue=lane).set(facts.leased.get(lane, 0))
        metrics.outbox_oldest_seconds.set(facts.outbox_oldest_age_seconds)
        if time.monotonic() >= self._count_at:
            self._count_at = time.monotonic() + _COUNT_SECONDS
            for state, count in self._ledger.count_states().items():
                metrics.ledger_jobs.labels(state=state).set(count)
            self._set_reviews()
        if time.monotonic() >= self._work_at:
            self._set_work(inbox)

    def _set_reviews(self) -> None:
        waiting, age = self._ledger.review_backlog()
        self._metrics.review_open.set(waiting)
        self._metrics.review_oldest_seconds.set(age)
        counts = self._ledger.label_counts()
        for (word, label), count in counts.items():
            self._metrics.review_labels.labels(verdict=word, label=label).set(count)
        for word in {word for word, _ in counts}:
            num_fake, num_clean = counts.get((word, "fake"), 0), counts.get((word, "clean"), 0)
            self._metrics.review_precision.labels(verdict=word).set(num_fake / (num_fake + num_clean))
        self._reviews_read, decisions = self._ledger.decisions_after(self._reviews_read)
        for decision, word in decisions:
            self._metrics.reviews.labels(decision=decision, verdict=word).inc()

    def _set_work(self, inbox: dict[str, int]) -> None:
        started = time.monotonic()
        if started >= self._learn_at:
            self._learn_at = started + _LEARN_SECONDS
            self.model = fit(self._ledger.recent_costs(limit=_SAMPLES))
        waiting, running = self._ledger.media_sums()
        for lane in INBOX_LANES:
            unread = self.model.predict(MediaSums(num_videos=inbox.get(lane, 0)))
            left = self.model.left(running[lane]) if lane in running else 0.0
            queued = self.model.predict(waiting[lane]) if lane in waiting else 0.0
            self._metrics.queue_work_seconds.labels(queue=lane).set(unread + queued + left)
        self._work_at = time.monotonic() + (time.monotonic() - started) / _SHARE

    def _inbox_lengths(self) -> dict[str, int]:
        if self._client is None:
            return {}
        try:
            with translated():
                pipe = self._client.pipeline(transaction=False)
                lists = [(lane, name) for lane in INBOX_LANES for name in inbox_lists(lane)]
                for _lane, name in lists:
                    pipe.llen(name)
                lengths = Counter[str]()
                for (lane, _name), length in zip(lists, pipe.execute(), strict=True):
                    lengths[lane] += int(length)
                return dict(lengths)
        except BrokerError:
            return {}
