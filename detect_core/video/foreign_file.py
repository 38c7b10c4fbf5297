"""The uploaded file as FFmpeg reads it inside the decode child: an open descriptor, never a path."""

from __future__ import annotations

import io


class ForeignFile:
    """The uploaded file as PyAV reads it: an already open descriptor, named so that no message shows a path."""

    name = "input"

    def __init__(self, fd: int) -> None:
        self._raw = io.FileIO(fd, "rb", closefd=False)
        self.size = self._raw.seek(0, io.SEEK_END)
        self._raw.seek(0)

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(size) or b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()
