"""The published error codes: each has one meaning, an HTTP-shaped body with a sentence, and says rightly whether to try again."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from detect_core import errors as core
from workers import errors
from workers.app import make_app
from workers.janitor import poison_body
from workers.messages import JobFacts, failure_body
from workers.retry import RETRYABLE_CODES, Action, decide
from workers.settings import Settings

NEVER = [
    "EMPTY_INPUT",
    "NOT_MEDIA",
    "FORMAT_NOT_ALLOWED",
    "CORRUPT_CONTAINER",
    "NO_VIDEO_STREAM",
    "IMAGE_ONLY",
    "UNSUPPORTED_CODEC",
    "ENCRYPTED_MEDIA",
    "TOO_MANY_STREAMS",
    "RESOLUTION_TOO_LARGE",
    "RESOLUTION_TOO_SMALL",
    "DURATION_TOO_LONG",
    "FILE_TOO_LARGE",
    "DECODE_ERROR",
    "DECODER_CRASH",
    "FETCH_NOT_ALLOWED",
    "FETCH_NOT_FOUND",
    "FETCH_TOO_LARGE",
    "FETCH_CHANGED",
]
ONCE = ["DECODE_TIMEOUT", "DECODE_RESOURCE_LIMIT"]
LATER = ["FETCH_TIMEOUT", "MODEL_UNAVAILABLE"]


def leaves(base: type[Exception]) -> Iterator[type[Exception]]:
    for each in base.__subclasses__():
        yield each
        yield from leaves(each)


CLASSES = [*leaves(core.DetectCoreError), *leaves(errors.WorkerError)]


def classes_of(code: str) -> list[type[Exception]]:
    return [each for each in CLASSES if each.__dict__.get("code") == code and not each.__subclasses__()]


@pytest.mark.parametrize("code", [*NEVER, *ONCE, *LATER])
def test_a_code_has_a_class_and_says_rightly_whether_to_try_again(code):
    # families carry the code of their commonest leaf; DECODER_CRASH is a death, or an answer as bad as one
    classes = classes_of(code) or [each for each in CLASSES if each.code == code]
    assert 1 <= len(classes) <= (2 if code == "DECODER_CRASH" else 4 if code == "MODEL_UNAVAILABLE" else 1), classes
    for each in classes:
        decision = decide(each("tried this, got that; do something else"), retries=0)
        again = decide(each("tried this"), retries=1)
        assert decision.code == code
        assert decision.retryable is (code not in NEVER)
        assert (decision.action is Action.RETRY) is (code not in NEVER)
        assert (again.action is Action.RETRY) is (code in LATER)
        assert (code in RETRYABLE_CODES) is (code not in NEVER)
        body = failure_body(code=code, message=str(decision.message), retryable=decision.retryable, job=JobFacts(video_id="a")).to_json()
        assert body["error"] == {"code": code, "message": decision.message, "retryable": decision.retryable}
        assert body["score"] is None


def test_an_untyped_error_is_internal_and_says_nothing_of_itself():
    decision = decide(ZeroDivisionError("/secret/path"), retries=0)
    assert (decision.code, decision.retryable, decision.action) == ("INTERNAL", True, Action.RETRY)
    assert "/secret/path" not in decision.message
    assert "INTERNAL" in RETRYABLE_CODES


def test_a_quarantined_video_waits_for_an_operator():
    row = SimpleNamespace(video_id="a", ledger_id="f" * 32, content_sha256=None, trace_id=None, attributes='{"order": 7}')
    body = poison_body(row)
    error = body["error"]
    assert body["attributes"] == {"order": 7}, "the caller knows its video by them"
    assert (error["code"], error["retryable"]) == ("POISONED", False)
    assert "veriframe requeue" in error["message"]
    assert "POISONED" not in RETRYABLE_CODES


def test_the_broker_carries_json_and_nothing_that_can_be_code():
    configuration = make_app(Settings(), broker_url="redis://127.0.0.1:1/0").conf
    assert configuration.accept_content == ["json"]
    assert (configuration.task_serializer, configuration.result_serializer) == ("json", "json")
    assert configuration.worker_enable_remote_control is False
    assert configuration.result_backend is None
