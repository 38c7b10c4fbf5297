"""SHA-256 of files in the media folders, computed once per version of a file: the player shows what was judged, or nothing."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Final

_CHUNK: Final = 1024**2
_KEPT: Final = 4096


class Digests:
    """The hashes of one API process; by device, inode, size and times, so that a file written over is hashed again."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, ...], Future[str]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, descriptor: int, *, at_most_bytes: int | None = None) -> str | None:
        """The hash of an opened file, as hex digits; None when it is not known yet and would take more than `at_most_bytes` to read.

        Raises:
            OSError: the file cannot be read, or was written to meanwhile.
        """
        version = _version(descriptor)
        with self._lock:
            found = self._known.get(version)
            is_mine = found is None
            if found is None:
                if at_most_bytes is not None and os.fstat(descriptor).st_size > at_most_bytes:
                    return None
                found = self._known[version] = Future()
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        if not is_mine:  # a player asks several times in a row: one of them reads
            return found.result() if found.done() or at_most_bytes is None else None
        try:
            found.set_result(_read(descriptor, version))
        except BaseException as err:
            with self._lock:
                self._known.pop(version, None)
            found.set_exception(err)
            raise
        return found.result()


def _version(descriptor: int) -> tuple[int, ...]:
    facts = os.fstat(descriptor)
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _read(descriptor: int, version: tuple[int, ...]) -> str:
    digest, position = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, _CHUNK, position):
        position += len(chunk)
        digest.update(chunk)
    if _version(descriptor) != version:
        raise OSError("the file was written to while it was read")
    return digest.hexdigest()
