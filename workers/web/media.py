"""The video itself, for the player, by byte range: files below the media roots, opened without following links; others from a copy."""

from __future__ import annotations

import os
import re
import stat
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..errors import SourceNotAllowedError
from ..settings import Settings
from ..sources import locate, open_beneath, split_location

_CHUNK: Final = 256 * 1024
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_TYPES: Final = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska"}
GONE: Final = "The video is no longer there. The verdict and what it rests on stay."
CHANGED: Final = "The file in the store is not the one that was judged any more. The verdict and what it rests on stay."
ELSEWHERE: Final = "The video lies in another store, which this page does not reach. The verdict and what it rests on are shown."


class Media:
    """An opened video file; it is closed once sent, or when a client went away before the first byte."""

    def __init__(self, descriptor: int, *, num_bytes: int, content_type: str) -> None:
        self.descriptor = descriptor
        self.num_bytes = num_bytes
        self.content_type = content_type
        self.close = weakref.finalize(self, os.close, descriptor)


@dataclass(frozen=True, slots=True)
class Remote:
    """A video in a bucket or behind https that the settings allow to fetch."""

    video_id: str
    location: str

    @property
    def content_type(self) -> str:
        """By its name."""
        return _content_type(PurePosixPath(urlsplit(self.location).path))


def open_media(settings: Settings, *, video_id: str, source: str | None, tenant: str = "") -> Media | Remote | str:
    """Open one video, say where it is to be fetched from, or say in a sentence why it cannot be shown."""
    try:
        location = locate(settings, video_id, source=source, tenant=tenant)
        parts = split_location(location)
    except SourceNotAllowedError:
        return ELSEWHERE
    if _is_allowed(settings, parts):
        return Remote(video_id, location)
    if parts.scheme.lower() not in ("", "file") or parts.netloc not in ("", "localhost"):
        return ELSEWHERE
    path = PurePosixPath(unquote(parts.path) if parts.scheme else location)
    root = next((root for root in settings.media_roots if path.is_relative_to(root)), None)
    if root is None or ".." in path.parts:
        return ELSEWHERE
    try:
        descriptor = open_beneath(root, PurePosixPath(path.relative_to(root)))
    except (OSError, ValueError):
        return GONE
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        return GONE
    return Media(descriptor, num_bytes=facts.st_size, content_type=_content_type(path))


def _content_type(path: PurePosixPath) -> str:
    return _TYPES.get(path.suffix.lower(), "video/mp4")


def _is_allowed(settings: Settings, parts: SplitResult) -> bool:
    if not settings.review_copy_bytes:
        return False
    if parts.scheme.lower() == "s3":
        return parts.netloc in settings.s3_allowed_buckets
    return parts.scheme.lower() in ("http", "https") and parts.hostname in settings.http_allowed_hosts


def answer_range(request: Request, media: Media) -> Response:
    """The wanted bytes; closes the file when they are sent."""
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-store",
        "Content-Disposition": "inline",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    start, end, status = 0, media.num_bytes - 1, 200
    wanted = request.headers.get("range")
    if wanted is not None:
        found = wanted_range(wanted, media.num_bytes)
        if found is None:
            media.close()
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{media.num_bytes}"})
        start, end = found
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end}/{media.num_bytes}"
    headers["Content-Length"] = str(end - start + 1)
    return StreamingResponse(_bytes(media, start, end), status_code=status, media_type=media.content_type, headers=headers)


def wanted_range(header: str, num_bytes: int) -> tuple[int, int] | None:
    """First and last byte of a `Range` header; None when it cannot be met. Several ranges at once are not served."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or num_bytes == 0:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    start = int(first) if first else max(0, num_bytes - int(last))
    end = min(int(last), num_bytes - 1) if first and last else num_bytes - 1
    return (start, end) if start <= end else None


def _bytes(media: Media, start: int, end: int) -> Iterator[bytes]:
    try:
        position = start
        while position <= end:
            chunk = os.pread(media.descriptor, min(_CHUNK, end - position + 1), position)
            if not chunk:
                return  # the file was cut short meanwhile
            position += len(chunk)
            yield chunk
    finally:
        media.close()
