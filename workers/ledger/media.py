"""What the ledger knows about the cost of videos: facts of live jobs added up, and what ended ones took."""

from __future__ import annotations

import json

from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.engine import Connection

from ..forecast import MediaCost, MediaSums
from .engine import reading
from .schema import db_now, is_leased, is_queued, jobs, verdicts


class MediaFacts:
    """The part of the ledger behind the prediction of work."""

    _engine: Engine

    def media_sums(self) -> tuple[dict[str, MediaSums], dict[str, MediaSums]]:
        """(waiting, running) per lane. Walks all live rows: ask at a pace that fits the length of the backlog."""
        with reading(self._engine) as connection:
            return _sums(connection, is_queued, running=False), _sums(connection, is_leased, running=True)

    def recent_costs(self, *, limit: int) -> list[MediaCost]:
        """The newest verdicts' media and what they took, for a fit."""
        newest = select(verdicts.c.body).order_by(verdicts.c.seq.desc()).limit(limit)
        with reading(self._engine) as connection:
            bodies = [json.loads(body) for body in connection.scalars(newest)]
        return [cost for body in bodies if (cost := _cost(body)) is not None]


def _sums(connection: Connection, live: ColumnElement[bool], *, running: bool) -> dict[str, MediaSums]:
    known = (jobs.c.media_seconds, jobs.c.media_megapixels, jobs.c.media_faces)
    columns = [part for column in known for part in (func.coalesce(func.sum(column), 0.0), func.count(column))]
    elapsed = func.coalesce(func.sum(db_now() - jobs.c.started_at), 0.0) if running else func.sum(0.0)
    rows = connection.execute(select(jobs.c.lane, func.count(), *columns, elapsed).where(live).group_by(jobs.c.lane))
    return {row[0]: MediaSums(*row[1:]) for row in rows}


def _cost(body: dict[str, object]) -> MediaCost | None:
    video, sampling, timing = body.get("video"), body.get("sampling"), body.get("timing_ms")
    if not isinstance(video, dict) or not isinstance(sampling, dict) or not isinstance(timing, dict):
        return None
    if not isinstance(timing.get("total"), int | float) or not sampling.get("decoded"):
        return None
    return MediaCost(
        duration_seconds=float(video["duration"]),
        megapixels=video["width"] * video["height"] / 1e6,
        num_faces=sampling["faces"] / sampling["decoded"],
        work_seconds=timing["total"] / 1000,
    )
