"""Explanations, shadows and revisions on a real Postgres server: the very tests that run on SQLite, with another fixture."""

from __future__ import annotations

import pytest

from tests.integration.test_ledger_postgres import ledger, url  # noqa: F401
from tests.workers.test_learning_ledger import (  # noqa: F401
    test_a_decided_item_is_not_asked_again_unless_the_word_changes,
    test_a_refused_explanation_may_be_asked_for_again_and_nobody_keeps_what_nobody_wants,
    test_a_revision_stands_beside_the_old_verdict_and_becomes_the_newest,
    test_a_shadow_is_kept_beside_the_verdict_and_its_disagreements_are_sampled_into_review,
    test_an_explanation_is_asked_for_once_made_once_and_gone_when_it_expires,
    test_each_revision_that_flips_is_told_once_and_others_are_not,
)

pytestmark = pytest.mark.integration
