"""Judge the archive again with another bundle set: new revisions beside the old verdicts, and a report of what flips."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from detect_core.errors import DetectCoreError

from .errors import WorkerError
from .ledger import ArchivedVerdict, Ledger, VerdictRecord
from .messages import JobFacts, verdict_body
from .retry import code_of
from .screening import Screener
from .sources import Sources


@dataclass(slots=True)
class RescoreReport:
    """What a round came to."""

    bundle_set: str
    num_judged: int = 0
    num_known: int = 0
    """Already judged by this set, forgotten or judged in another version meanwhile; nothing was written."""
    flips: list[dict[str, Any]] = field(default_factory=list)
    """`{video_id, from, to, p_before, p_after, decided}`, decided: what people had said."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Videos that could not be judged again, by code: most often the media are gone."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "bundle_set": self.bundle_set,
            "judged": self.num_judged,
            "known": self.num_known,
            "flips": self.flips,
            "flips_already_decided": sum(flip["decided"] is not None for flip in self.flips),
            "skipped": dict(self.skipped),
        }


def rescore(
    ledger: Ledger,
    *,
    screener: Screener,
    bundle_set: str,
    sources: Sources,
    urls: list[str],
    limit: int | None = None,
    write: bool = True,
    cancel: threading.Event | None = None,
) -> Iterator[RescoreReport]:
    """Judge the newest verdict of every video again, newest first; yields the report as it grows.

    Args:
        ledger: where verdicts lie; the old ones are never touched.
        screener: with the new set.
        bundle_set: its label, `name@hash`.
        sources: where media come from.
        urls: who is told when a word changes, beside the job's own callback.
        limit: at most so many videos.
        write: False reports and writes nothing.
        cancel: set it to stop after the running video.
    """
    report = RescoreReport(bundle_set)
    for old in ledger.archive(not_by=bundle_set, limit=limit):
        if cancel is not None and cancel.is_set():
            return
        try:
            new = _judge(old, screener=screener, sources=sources)
        except (DetectCoreError, WorkerError, MemoryError) as err:
            report.skipped[code_of(err)] += 1
            yield report
            continue
        targets = [*urls, old.callback_url] if old.callback_url else urls
        if write and not ledger.revise(old, verdict=new, urls=targets):
            report.num_known += 1
            yield report
            continue
        report.num_judged += 1
        if new.verdict != old.verdict:
            item = ledger.review_item(old.seq)
            report.flips.append(
                {
                    "video_id": old.video_id,
                    "from": old.verdict,
                    "to": new.verdict,
                    "p_before": old.p_fake,
                    "p_after": new.p_fake,
                    "decided": item.decision if item is not None else None,
                }
            )
        yield report


def _judge(old: ArchivedVerdict, *, screener: Screener, sources: Sources) -> VerdictRecord:
    media = sources.fetch(old.video_id, source=old.source, content_sha256=old.content_sha256, cancel=threading.Event(), tenant=old.tenant)
    try:
        verdict = screener.screen(media.file)
    finally:
        media.close()
    facts = JobFacts(
        video_id=old.video_id,
        job_id=old.ledger_id,
        content_sha256=media.sha256,
        attributes=old.body.get("attributes") or {},
        trace_id=old.body.get("trace_id"),
        worker="rescore",
    )
    body = verdict_body(verdict, job=facts).model_copy(update={"revision": old.revision + 1, "supersedes": old.seq})
    return VerdictRecord(
        content_sha256=media.sha256,
        bundle_set=verdict.bundle_set,
        policy=verdict.policy,
        verdict=verdict.verdict,
        p_fake=verdict.p_fake,
        body=body.to_json(),
    )
