"""ONE table: error class -> what the worker does about it. Nothing else in the service decides this.

RETRY gives the job back and tries again later, FAIL ends it with the error's code, CRASH ends the process at start-up.
"Inconclusive" is no row here: it is a verdict on media that decoded, made by `detect_core.policy`, never an error.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final

from detect_core import errors as core

from . import errors


class Action(Enum):
    """What to do about an error."""

    RETRY = "retry"
    FAIL = "fail"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    action: Action
    max_retries: int = 0
    """After this many retries of one job a RETRY becomes a FAIL."""
    delay_seconds: float = 0.0
    """First pause; doubles with every retry."""


_FAIL: Final = Rule(Action.FAIL)
_ONCE: Final = Rule(Action.RETRY, max_retries=1, delay_seconds=0.0)
_CRASH: Final = Rule(Action.CRASH)

TABLE: Final[dict[type[BaseException], Rule]] = {
    # the file's or the caller's fault: the same bytes fail again
    core.MediaError: _FAIL,
    core.OptionError: _FAIL,
    errors.SourceNotAllowedError: _FAIL,
    errors.MediaGoneError: _FAIL,
    errors.FetchTooLargeError: _FAIL,
    errors.MediaChangedError: _FAIL,
    errors.InvalidMessageError: _FAIL,
    # the decode child: a crash is a poison signal, a limit may have been a busy machine
    core.DecoderCrashError: _FAIL,
    core.DecodeProtocolError: _FAIL,
    core.DecodeTimeoutError: _ONCE,
    core.DecodeResourceError: _ONCE,
    core.DecodeLimitError: _ONCE,
    MemoryError: _ONCE,
    # ours or the world's
    core.DetectorError: _ONCE,
    core.BundleError: Rule(Action.RETRY, max_retries=3, delay_seconds=30.0),
    errors.MediaUnavailableError: Rule(Action.RETRY, max_retries=8, delay_seconds=5.0),
    errors.SettingsError: _CRASH,
    errors.BrokerPolicyError: _CRASH,
    errors.LedgerSchemaError: _CRASH,
    OSError: Rule(Action.RETRY, max_retries=3, delay_seconds=10.0),  # a full temp disk and the like
    Exception: _ONCE,  # untyped: a bug by definition
}

_CODES: Final[dict[type[BaseException], str]] = {MemoryError: "DECODE_RESOURCE_LIMIT", OSError: "INTERNAL", Exception: "INTERNAL"}
MAX_DELAY_SECONDS: Final = 600.0


def _codes_worth_another_try(*bases: type[core.DetectCoreError] | type[errors.WorkerError]) -> frozenset[str]:
    found = set()
    for base in bases:
        if base.retryable:
            found.add(base.code)
        found |= _codes_worth_another_try(*base.__subclasses__())
    return frozenset(found)


RETRYABLE_CODES: Final = _codes_worth_another_try(core.DetectCoreError, errors.WorkerError) | {"INTERNAL", "DECODE_RESOURCE_LIMIT"}
"""Codes with which the same submission may succeed later; what a caller is told beside a stored failure."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one job after one error."""

    action: Action
    code: str
    message: str
    retryable: bool
    """Whether the caller may submit the same again later."""
    delay_seconds: float = 0.0


def rule_for(error: BaseException) -> Rule:
    """The row of the nearest class in the error's MRO."""
    for cls in type(error).__mro__:
        if cls in TABLE:
            return TABLE[cls]
    return TABLE[Exception]


def code_of(error: BaseException) -> str:
    """The public code of an error."""
    code = getattr(error, "code", None)
    if isinstance(error, core.DetectCoreError | errors.WorkerError) and isinstance(code, str):
        return code
    return next((_CODES[cls] for cls in type(error).__mro__ if cls in _CODES), "INTERNAL")


def decide(error: BaseException, *, retries: int) -> Decision:
    """Look one error up.

    Args:
        error: what the screening raised.
        retries: how often this job was retried already.
    """
    rule = rule_for(error)
    typed = isinstance(error, core.DetectCoreError | errors.WorkerError)
    code = code_of(error)
    if typed:
        message = str(error)
    elif isinstance(error, MemoryError):
        message = "this video needs more memory than the worker has: lower its resolution, or raise the worker's memory"
    else:  # no stack trace, path or value of ours reaches a caller
        message = "something failed in Veriframe itself; the video was not judged. Try again later or report the job ID"
    retryable = bool(getattr(error, "retryable", False)) if typed else True
    if rule.action is Action.RETRY and retries < rule.max_retries:
        delay = min(MAX_DELAY_SECONDS, rule.delay_seconds * 2**retries) * random.uniform(0.8, 1.2)
        return Decision(Action.RETRY, code, message, retryable, delay)
    action = Action.CRASH if rule.action is Action.CRASH else Action.FAIL
    return Decision(action, code, message, retryable)
