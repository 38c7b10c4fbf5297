"""Signed webhooks sent again later: how many a receiver with our own check would take."""

from __future__ import annotations

from workers.signatures import TOLERANCE_SECONDS, sign, verify

_KEY, _OLD_KEY = b"k" * 32, b"o" * 32
_BODY = b'{"type":"io.veriframe.verdict.completed"}'


def replays_accepted() -> tuple[int, int]:
    """(accepted, tried) among well-signed events that are more than five minutes old, or as far in the future."""
    now, tried, accepted = 1_800_000_000.0, 0, 0
    for age in (*range(TOLERANCE_SECONDS + 1, TOLERANCE_SECONDS + 200), 3600, 86_400, 10**9):
        for made_at in (now - age, now + age):
            for key in (_KEY, _OLD_KEY):
                tried += 1
                accepted += verify(_BODY, headers=_headers(int(made_at), key=key), keys=[_KEY, _OLD_KEY], now=now)
    if not all(verify(_BODY, headers=_headers(int(now) - age, key=_KEY), keys=[_KEY, _OLD_KEY], now=now) for age in (0, 60, 300)):
        raise AssertionError("fresh events are refused: the count above would prove nothing")
    return accepted, tried


def _headers(timestamp: int, *, key: bytes) -> dict[str, str]:
    signature = sign(_BODY, event_id="e", timestamp=timestamp, key=key)
    return {"webhook-id": "e", "webhook-timestamp": str(timestamp), "webhook-signature": signature}
