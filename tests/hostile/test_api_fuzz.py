"""The API against data that its own schema makes up."""

from __future__ import annotations

import pytest

from hostile.api_fuzz import run_fuzz


@pytest.mark.hostile
def test_no_request_finds_a_bug_or_a_promise_that_is_not_kept():
    found = run_fuzz(examples=6)
    assert found["failures"] == []
    assert found["requests"] > 100
    assert {"202", "422"} <= set(found["statuses"])
