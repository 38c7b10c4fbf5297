"""JSON that others sent: decoded in one place, so that whatever cannot be kept or answered later is refused here."""

from __future__ import annotations

import json
from typing import Final

from ..errors import InvalidMessageError

_MAX_DEPTH: Final = 64


def load_json(raw: bytes | str, *, what: str) -> object:
    """Decode one JSON text.

    Args:
        raw: the text.
        what: its name in the error message.

    Raises:
        InvalidMessageError: no JSON, nested deeper than 64 levels, or a text in it holds half of a surrogate pair.
    """
    try:
        value: object = json.loads(raw)
        _require_plain(value)
    except UnicodeEncodeError as err:
        raise InvalidMessageError(f"{what} holds half of a surrogate pair ({err.object[err.start]!a}): send whole characters") from err
    except (ValueError, RecursionError) as err:
        raise InvalidMessageError(f"{what} cannot be read as JSON: {err}") from err
    return value


def _require_plain(value: object) -> None:
    """Refuse what decodes but could be hashed, stored, shown or walked by nothing that follows."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[object] = []
        for each in level:
            if isinstance(each, str):
                each.encode()
            elif isinstance(each, dict):
                inner += each.keys()
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
