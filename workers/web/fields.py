"""Kinds of fields that several routes take."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query
from pydantic import Field

_LARGEST: Final = 2**63 - 1

Tenant = Annotated[str, Query(pattern=r"^[A-Za-z0-9_-]{0,64}$", description="Whose video; empty: the house's own")]
ReaderTenant = Annotated[
    str | None,
    Query(pattern=r"^[A-Za-z0-9_-]{0,64}$", description="Whose video, for keys with the scope `review`; without it the key's own"),
]
RowNumber = Annotated[int, Field(ge=0, le=_LARGEST)]
"""Number of a verdict or of a line of a log. A larger one is in no ledger: none can even compare it."""
