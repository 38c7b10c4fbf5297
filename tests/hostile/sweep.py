"""Put one foreign file through the decoder, or through the whole screening, and say what became of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from detect_core.errors import DetectCoreError
from detect_core.options import DecodeLimits, ScreeningOptions
from detect_core.pipeline import Screener
from detect_core.video.decode import DecodeSession

DEADLINE_SECONDS = 30.0


@dataclass(slots=True)
class Outcome:
    """How one file ended."""

    file: str
    outcome: str
    """`verdict`, a public error code, or `UNTYPED: ...` (a bug by definition)."""
    message: str = ""
    warnings: set[str] = field(default_factory=set)
    upright: bool | None = None
    seconds: float = 0.0
    peak_rss_bytes: int = 0


def decode(path: Path, *, name: str | None = None) -> Outcome:
    """Measure and decode a file; nothing is scored."""
    started = time.monotonic()
    result = Outcome(file=name or path.name, outcome="verdict")
    options = ScreeningOptions(decode=DecodeLimits(wall_seconds=DEADLINE_SECONDS))
    session: DecodeSession | None = None
    try:
        with path.open("rb") as file:
            session = DecodeSession(file, options=options)
            info = session.open()
            result.upright = info.height_px >= info.width_px
            more = True
            while more:
                _, more = session.next_frames(options.num_frames)
                session.release()
            result.warnings = set(session.warnings)
    except DetectCoreError as err:
        result.outcome, result.message = err.code, str(err)
    except Exception as err:
        result.outcome, result.message = f"UNTYPED: {type(err).__name__}", str(err)
    finally:
        if session is not None:
            session.close()
            session._child.dead.wait(5)
            result.peak_rss_bytes = session._child.peak_rss_bytes
    result.seconds = time.monotonic() - started
    return result


def screen(path: Path, screener: Screener) -> Outcome:
    """Judge a file as the service would."""
    started = time.monotonic()
    result = Outcome(file=path.name, outcome="verdict")
    try:
        with path.open("rb") as file:
            verdict = screener.screen(file)
        result.warnings = set(verdict.warnings)
        result.upright = verdict.video.height_px >= verdict.video.width_px
        result.message = f"{verdict.verdict} {','.join(verdict.reason_codes)}"
        if verdict.p_fake is not None and verdict.sampling.num_faces == 0:
            result.outcome = "UNTYPED: a score without a face"
    except DetectCoreError as err:
        result.outcome, result.message = err.code, str(err)
    except Exception as err:
        result.outcome, result.message = f"UNTYPED: {type(err).__name__}", str(err)
    result.seconds = time.monotonic() - started
    return result
