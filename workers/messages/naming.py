"""Whether a message that was refused names a video all the same: forgetting must find it in the dead letters too.

Refused messages have any shape, so all spellings are tried: plain, escaped, percent-encoded, and base64 as Celery wraps its bodies,
also cut off in the middle. Rather one letter too many is found than one too few.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from .events import video_id_of_object

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_OBJECT_ID = re.compile(r".+-([0-9a-f]{16}|[0-9a-f]{40})", re.ASCII)
_NAME_OR_KEY = re.compile(r'"(name|key)"\s*:\s*("(?:[^"\\]|\\.)*")')
_DEPTH: Final = 3
"""Base64 in base64 is looked into so often."""


def names_video(message: str | bytes, video_id: str) -> bool:
    """Whether `message` holds the ID as a whole word, or the S3 object that has this ID.

    Args:
        message: what was refused, perhaps only its beginning.
        video_id: a plain ID (letters, digits, `_`, `-`).
    """
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else message
    word = re.compile(rf"(?<![A-Za-z0-9_-]){re.escape(video_id)}(?![A-Za-z0-9_-])", re.ASCII)
    if any(word.search(spelling) for spelling in _spellings(text, _DEPTH)):
        return True
    return _OBJECT_ID.fullmatch(video_id) is not None and any(video_id == video_id_of_object(*each) for each in _objects(text))


def _spellings(text: str, depth: int) -> Iterator[str]:
    plain = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    yield plain
    yield unquote(plain)
    if depth:
        for run in _BASE64.findall(plain):
            yield from _spellings(_decoded(run), depth - 1)


def _decoded(run: str) -> str:
    usable = run[: len(run) // 4 * 4]  # a cut or padded tail carries three bytes at most
    tail = run[len(usable) :] + "=" * (-len(run) % 4) if len(run) % 4 > 1 else ""
    return base64.b64decode((usable + tail).translate(str.maketrans("-_", "+/"))).decode("utf-8", "replace")


def _objects(text: str) -> Iterator[tuple[str, str]]:
    """Bucket and key of the stored objects that an S3-shaped notification tells of."""
    try:
        records = json.loads(text)["Records"]
    except (ValueError, KeyError, TypeError, RecursionError):
        yield from _objects_of_a_cut(text)
        return
    for record in records if isinstance(records, list) else ():
        stored: Any = record.get("s3") if isinstance(record, dict) else None
        try:
            bucket, key = stored["bucket"]["name"], stored["object"]["key"]
        except (KeyError, TypeError):
            continue
        if isinstance(bucket, str) and isinstance(key, str):
            yield bucket, unquote_plus(key)


def _objects_of_a_cut(text: str) -> Iterator[tuple[str, str]]:
    """The same where the end is missing: each key with the bucket that was named before it."""
    bucket = ""
    for field, quoted in _NAME_OR_KEY.findall(text):
        try:
            value = json.loads(quoted, strict=False)
        except ValueError:
            continue
        if field == "name":
            bucket = value
        else:
            yield bucket, unquote_plus(value)
