"""Refuse what is told by the raw bytes alone, before a demuxer sees them: encryption, and headers made to cost time."""

from __future__ import annotations

from typing import Final

from ..errors import CorruptContainerError, EncryptedMediaError, TooManyStreamsError
from ..options import DecodeLimits
from .foreign_file import ForeignFile
from .matroska import hides_pixels
from .mp4boxes import MAX_BOXES, MAX_EDITS, BoxSurvey, survey

_STREAM_BYTES: Final = 1024 * 1024
_PACKET_SIZES: Final = (188, 192, 204)
_SCRAMBLED_SHARE: Final = 0.1
"""Of the packets with a payload: damage flips a few of these bits, protection sets them on whole streams."""


def look_ahead(file: ForeignFile, *, demuxer: str, limits: DecodeLimits) -> tuple[str, ...]:
    """Look at the bytes of a container whose demuxer is known.

    Returns:
        Warnings.

    Raises:
        EncryptedMediaError: its picture is protected.
        TooManyStreamsError: it declares more tracks than the limit.
        CorruptContainerError: its index is cut off, or built to cost time.
    """
    is_cropped = False
    if demuxer == "mov":
        found = survey(file, size=file.size)  # type: ignore[arg-type]
        _refuse_mp4(found, limits=limits)
        is_cropped = found.hides_pixels
    elif demuxer == "matroska":
        is_cropped = hides_pixels(file, size=file.size)  # type: ignore[arg-type]
    elif demuxer == "mpegts":
        file.seek(0)
        if scrambled_share(file.read(_STREAM_BYTES)) > _SCRAMBLED_SHARE:
            raise EncryptedMediaError("the transport stream is scrambled; upload the file without copy protection")
    file.seek(0)
    return ("HIDDEN_PICTURE_AREA",) if is_cropped else ()


def _refuse_mp4(found: BoxSurvey, *, limits: DecodeLimits) -> None:
    if found.has_encrypted_video:
        raise EncryptedMediaError("the video track is encrypted; upload the file without copy protection")
    if found.num_tracks > limits.num_streams:
        raise TooManyStreamsError(
            f"the container declares {found.num_tracks} tracks, the limit is {limits.num_streams}; remux one video track"
        )
    if found.is_opaque:
        raise CorruptContainerError(
            f"the file holds more than {MAX_BOXES} boxes, deeply nested or compressed ones; remux it and upload it again"
        )
    if found.num_edits > MAX_EDITS:
        raise CorruptContainerError(
            f"the file's edit lists have {found.num_edits} entries, the limit is {MAX_EDITS}; export it as one piece"
        )
    if found.is_header_cut:
        raise CorruptContainerError("the file is TRUNCATED: it ends within its index (moov box); upload the whole file again")


def scrambled_share(head: bytes) -> float:
    """Share of transport stream packets with a payload that say they are scrambled (ISO/IEC 13818-1, 2.4.3.3)."""
    for size in _PACKET_SIZES:
        for start in range(min(size, len(head))):
            if all(head[at] == 0x47 for at in range(start, min(len(head), start + 8 * size), size)):
                controls = [head[at + 3] for at in range(start, len(head) - 3, size) if head[at] == 0x47 and head[at + 3] & 0x10]
                return sum(control & 0x80 != 0 for control in controls) / len(controls) if controls else 0.0
    return 0.0
