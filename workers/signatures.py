"""Signatures of the Standard Webhooks specification: made by us, checked by receivers. Standard library only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from typing import Final

from .errors import SettingsError

TOLERANCE_SECONDS: Final = 300
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


def secret_bytes(secret: str) -> bytes:
    """The key inside `whsec_<base64>`.

    Raises:
        SettingsError: it is not base64 or shorter than 24 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError) as err:
        raise SettingsError("VERIFRAME_WEBHOOK_SECRET must be whsec_<base64>") from err
    if len(key) < 24:
        raise SettingsError(f"VERIFRAME_WEBHOOK_SECRET must hold at least 24 bytes, got {len(key)}")
    return key


def sign(body: bytes, *, event_id: str, timestamp: int, key: bytes) -> str:
    """One signature, `v1,<base64 HMAC-SHA256 of id.timestamp.body>`."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def verify(body: bytes, *, headers: Mapping[str, str], keys: Sequence[bytes], now: float | None = None) -> bool:
    """What a receiver does: right signature under any active key, and not older (or newer) than five minutes."""
    event_id, sent, given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    # anybody may send anything: other characters could not be compared or encoded, a longer number not be subtracted
    if not (event_id + given).isascii() or _TIMESTAMP.fullmatch(sent) is None:
        return False
    timestamp = int(sent)
    if abs((time.time() if now is None else now) - timestamp) > TOLERANCE_SECONDS:
        return False
    expected = [sign(body, event_id=event_id, timestamp=timestamp, key=key) for key in keys]
    return any(hmac.compare_digest(mine, theirs) for mine in expected for theirs in given.split())
