"""Kinds of fields that several routes take."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

_LARGEST: Final = 2**63 - 1

RowNumber = Annotated[int, Field(ge=0, le=_LARGEST)]
"""Number of a verdict or of a line of a log. A larger one is in no ledger: none can even compare it."""
