"""A file and a port that nothing may touch: opens are seen through inotify, calls by a listener. And the scripts that name both."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_IN_OPEN, _IN_ACCESS = 0x20, 0x1


class Canary:
    """Use as a context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="veriframe-canary-")
        self.file = Path(self._folder.name) / "canary.mp4"
        self.file.write_bytes(b"secret")
        self.calls: list[object] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._listening = threading.Thread(target=self._accept)
        self._watch = -1

    def __enter__(self) -> Self:
        self._listening.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._listening.join()
        if self._watch >= 0:
            os.close(self._watch)
        self._folder.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/x.mp4"

    def begin_watch(self) -> None:
        """From here on every open of the file is seen, whoever does it."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._watch < 0 or libc.inotify_add_watch(self._watch, str(self.file).encode(), _IN_OPEN | _IN_ACCESS) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def num_reads(self) -> int:
        """Opens and reads since the watch began."""
        count = 0
        while select.select([self._watch], [], [], 0)[0]:
            data, at = os.read(self._watch, 65536), 0
            while at < len(data):
                (length,) = struct.unpack_from("I", data, at + 12)
                at += 16 + length
                count += 1
        return count

    def _accept(self) -> None:
        while True:
            try:
                self.calls.append(self._server.accept()[1])
            except OSError:
                return


def scripts(canary: Canary) -> list[bytes]:
    """Files that would make a trusting demuxer open the canary or call the listener."""
    url, path, name = canary.url, canary.file.as_uri(), str(canary.file)
    texts = [
        f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\n{url}\n#EXTINF:10.0,\n{path}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nconcat:{name}|{url}\n#EXT-X-ENDLIST\n",
        f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:1,\n{name}\n',
        f"ffconcat version 1.0\nfile '{name}'\nfile '{url}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        f"<?xml version='1.0'?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>",
        f"<SmoothStreamingMedia><StreamIndex Url='{url}'/></SmoothStreamingMedia>",
        f"<svg xmlns='http://www.w3.org/2000/svg'><image href='{url}'/></svg>",
        f"<asx version='3.0'><entry><ref href='{url}'/></entry></asx>",
        f"[playlist]\nFile1={url}\nFile2={name}\nNumberOfEntries=2\n",
        f"{url}\n",
        f"file:{name}",
        "RIFF\xff\xff\x00\x00AVI LIST\x10\x00\x00\x00movi00tx\x40\x00\x00\x00GAB2\x00\x02\x00" + f"#EXTM3U\n{path}\n",
    ]
    return [*(text.encode("latin-1") for text in texts), *(_elsewhere(each) for each in (name, path, url))]


def _elsewhere(location: str) -> bytes:
    """An MP4 whose media lie in another file (`dref` with a location instead of "in this file")."""
    from hostile.crafted import box, clip, top_boxes

    reference = box(b"dref", struct.pack(">II", 0, 1), box(b"url ", bytes(4), location.encode() + b"\0"))
    parts = []
    for kind, body in top_boxes(clip()):
        if kind != b"moov":
            parts.append(body)
            continue
        at = body.index(b"dref") - 4
        length = struct.unpack_from(">I", body, at)[0]
        fresh, grown = body[:at] + reference + body[at + length :], len(reference) - length
        for outer in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            place = fresh.index(outer) - 4
            size = struct.unpack_from(">I", fresh, place)[0] + grown
            fresh = fresh[:place] + struct.pack(">I", size) + fresh[place + 4 :]
        parts.append(fresh)
    return b"".join(parts)
