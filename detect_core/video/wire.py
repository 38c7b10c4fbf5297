"""Messages between the worker and a decode child: length-prefixed JSON over a Unix stream socket, plus descriptors.

JSON and nothing richer: the child has touched hostile bytes, so what it says is data, never objects.
"""

from __future__ import annotations

import array
import json
import socket
import struct
import time
from typing import Any, Final

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_HEADER: Final = struct.Struct("!I")


class WireError(Exception):
    """Raised when the peer sent something that is no message."""


def send(sock: socket.socket, message: dict[str, Any], *, fds: tuple[int, ...] = ()) -> None:
    """Send one message; descriptors travel with its first byte."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    packet = _HEADER.pack(len(payload)) + payload
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        sent = sock.sendmsg([packet], rights)
        packet = packet[sent:]
    sock.sendall(packet)


def receive(sock: socket.socket, *, max_fds: int = 0, deadline: float | None = None) -> tuple[dict[str, Any], list[int]] | None:
    """Receive one message and up to `max_fds` descriptors; None when the peer closed.

    Args:
        sock: where it comes from.
        max_fds: descriptors that are taken.
        deadline: `time.monotonic()` at which the whole message must be there, however many pieces it comes in.

    Raises:
        WireError: the message is too long, cut off or not a JSON object.
        TimeoutError: the deadline or the socket's own timeout passed.
    """
    _set_timeout(sock, deadline)
    if max_fds:
        # exactly the header's bytes, so that descriptors cannot belong to a later message
        first, fds, _flags, _address = socket.recv_fds(sock, _HEADER.size, max_fds)
    else:
        first, fds = sock.recv(_HEADER.size), []
    if not first:
        return None
    header = first + _receive_exactly(sock, _HEADER.size - len(first), deadline)
    (size,) = _HEADER.unpack(header)
    if size > MAX_MESSAGE_BYTES:
        raise WireError(f"the peer announced a message of {size} bytes, the limit is {MAX_MESSAGE_BYTES}")
    try:
        message = json.loads(_receive_exactly(sock, size, deadline))
    except (ValueError, RecursionError) as err:
        raise WireError(f"the peer sent no JSON, or JSON too deep to read: {err}") from err
    if not isinstance(message, dict):
        raise WireError(f"the peer sent {type(message).__name__}, expected an object")
    return message, list(fds)


def _set_timeout(sock: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        return
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("the deadline passed before the message was whole")
    sock.settimeout(remaining)


def _receive_exactly(sock: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        _set_timeout(sock, deadline)
        part = sock.recv(min(size - len(parts), 1 << 16))
        if not part:
            raise WireError(f"the peer closed after {len(parts)} of {size} bytes")
        parts += part
    return bytes(parts)
