"""The review pages on Postgres: what it cannot store or compare is refused there as on SQLite."""

from __future__ import annotations

import pytest

from tests.integration.test_ledger_postgres import ledger, url  # noqa: F401
from tests.workers.review_pages.conftest import ana, api  # noqa: F401
from tests.workers.review_pages.test_pages import (  # noqa: F401
    test_a_number_that_no_ledger_holds_is_in_no_address,
    test_a_number_that_no_ledger_holds_is_in_no_form,
    test_a_search_with_a_nul_finds_nothing,
)
from tests.workers.review_pages.test_sign_in import test_a_session_ends_with_the_key_that_opened_it_and_no_other  # noqa: F401

pytestmark = pytest.mark.integration
