"""Human review on a real Postgres server: the very tests that run on SQLite, with another fixture."""

from __future__ import annotations

import pytest

from tests.integration.test_ledger_postgres import ledger, url  # noqa: F401
from tests.workers.test_reviews import (  # noqa: F401
    test_a_decision_is_made_once_and_can_be_taken_back_by_its_maker_only,
    test_a_login_link_works_once_and_not_too_late,
    test_a_newer_verdict_replaces_an_undecided_item,
    test_a_second_reader_is_another_person_and_a_difference_goes_to_a_third,
    test_many_hands_at_once_make_one_decision,
    test_one_person_holds_an_item_at_a_time,
    test_the_log_cannot_be_rewritten,
    test_videos_are_found_by_id_job_and_hash,
    test_what_would_change_is_counted,
)
from tests.workers.test_succession import (  # noqa: F401
    test_a_decision_stands_for_a_revision_that_says_the_same,
    test_an_appeal_survives_other_bytes_and_a_second_reading_of_the_old_ones_does_not,
    test_an_appeal_waits_on_whatever_the_new_verdict_says,
    test_an_appeal_waits_since_it_was_made,
    test_nobody_reopens_a_decided_item_while_people_look_at_a_newer_one,
)

pytestmark = pytest.mark.integration
