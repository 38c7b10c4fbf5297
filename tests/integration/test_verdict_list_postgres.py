"""The list of verdicts on a real Postgres server: the tests that run on SQLite, with another fixture."""

from __future__ import annotations

import pytest

from tests.integration.test_ledger_postgres import ledger, url  # noqa: F401
from tests.workers.test_verdict_list import (  # noqa: F401
    filled,
    names,
    test_a_verdict_that_was_erased_between_two_pages_ends_no_list,
    test_all_revisions_of_one_video_are_listed,
    test_the_api_takes_the_filters_and_gives_a_tenant_its_own_only,
    test_what_people_decided_on_is_apart_from_what_waits_and_what_nobody_needs_to_see,
)
from tests.workers.test_verdict_list import test_every_filter_holds_alone_and_with_others as every_filter

pytestmark = pytest.mark.integration


def test_every_filter_holds_alone_and_with_others(filled):  # noqa: F811
    for options, expected in every_filter.pytestmark[0].args[1]:
        assert names(filled, **options) == expected
