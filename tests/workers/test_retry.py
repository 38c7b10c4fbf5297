"""One table decides; every error class of ours and of the library has a row."""

from __future__ import annotations

import pytest

from detect_core import errors as core
from workers import errors
from workers.retry import RETRYABLE_CODES, Action, decide, rule_for


def subclasses(base: type) -> list[type]:
    return [cls for child in base.__subclasses__() for cls in (child, *subclasses(child))]


@pytest.mark.parametrize(
    ("error", "action", "code"),
    [
        (core.NotMediaError("x"), Action.FAIL, "NOT_MEDIA"),
        (core.EncryptedMediaError("x"), Action.FAIL, "ENCRYPTED_MEDIA"),
        (core.DecoderCrashError("x"), Action.FAIL, "DECODER_CRASH"),
        (core.DecodeTimeoutError("x"), Action.RETRY, "DECODE_TIMEOUT"),
        (core.DecodeResourceError("x"), Action.RETRY, "DECODE_RESOURCE_LIMIT"),
        (core.DetectorError("x"), Action.RETRY, "DETECTOR_ERROR"),
        (core.BundleNotFoundError("x"), Action.RETRY, "MODEL_UNAVAILABLE"),
        (MemoryError(), Action.RETRY, "DECODE_RESOURCE_LIMIT"),
        (errors.MediaGoneError("x"), Action.FAIL, "FETCH_NOT_FOUND"),
        (errors.SourceNotAllowedError("x"), Action.FAIL, "FETCH_NOT_ALLOWED"),
        (errors.MediaUnavailableError("x"), Action.RETRY, "FETCH_TIMEOUT"),
        (errors.SettingsError("x"), Action.CRASH, "INVALID_SETTINGS"),
        (errors.BrokerPolicyError("x"), Action.CRASH, "BROKER_EVICTS"),
        (OSError(28, "No space left on device"), Action.RETRY, "INTERNAL"),
        (ZeroDivisionError(), Action.RETRY, "INTERNAL"),
    ],
)
def test_first_occurrence(error, action, code):
    decision = decide(error, retries=0)
    assert (decision.action, decision.code) == (action, code)


def test_a_limit_is_retried_once_and_then_fails():
    assert decide(core.DecodeTimeoutError("x"), retries=1).action is Action.FAIL
    assert decide(MemoryError(), retries=1).action is Action.FAIL
    assert decide(errors.MediaUnavailableError("x"), retries=7).action is Action.RETRY
    assert decide(errors.MediaUnavailableError("x"), retries=8).action is Action.FAIL


def test_pauses_grow_and_stay_bounded():
    pauses = [decide(errors.MediaUnavailableError("x"), retries=n).delay_seconds for n in range(8)]
    assert pauses[0] < pauses[2] < pauses[4]
    assert max(pauses) <= 720


def test_no_detail_of_ours_reaches_a_caller():
    decision = decide(ValueError("/srv/secret/path and postgres://user:pw@host"), retries=9)
    assert "secret" not in decision.message
    assert "postgres" not in decision.message


def test_every_error_of_both_trees_finds_a_deliberate_row():
    for cls in subclasses(core.MediaError):
        assert rule_for(cls("x")).action is Action.FAIL, cls
    for cls in subclasses(errors.SourceError):
        expected = Action.RETRY if cls.retryable else Action.FAIL
        assert rule_for(cls("x")).action is expected, cls


def test_codes_worth_another_try():
    assert {"FETCH_TIMEOUT", "DECODE_TIMEOUT", "DECODE_RESOURCE_LIMIT", "MODEL_UNAVAILABLE", "INTERNAL"} <= RETRYABLE_CODES
    assert not {"NOT_MEDIA", "DECODER_CRASH", "FETCH_NOT_FOUND", "FETCH_NOT_ALLOWED", "POISONED", "ENCRYPTED_MEDIA"} & RETRYABLE_CODES
