"""Who receives a webhook: events share a receiver, and wait for it, when their addresses name one server."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

_PORTS: Final = {"http": 80, "https": 443}


def receiver_of(url: str) -> str:
    """Scheme, host and port of a webhook address, in one spelling whatever follows them."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:  # no address: nothing is ever sent there
        return url
    return f"{parts.scheme}://{host}:{port}"
