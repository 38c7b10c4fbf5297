"""What the packets of a stream say of themselves, which container flags may not contradict.

Containers say where decoding can start and keep the headers (parameter sets) of a stream. Both may lie: a decoder that starts
at a picture which needs others, or that never saw a header because its packet was skipped, gives other pictures than a
player, often without an error. So key pictures are those that both container and picture name, and from where headers
change on the way, or pictures cannot be read here, a stream is decoded whole.

Sources: ITU-T H.262 6.2, ISO/IEC 14496-2 6.2, ITU-T H.263 5.1, RFC 6386 9.1, the Theora specification 7.1, the AV1 specification
5.3; for FLV1, VP6 and MS-MPEG4 what their public decoders read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from av.packet import Packet
from av.video.stream import VideoStream

from .nal import nal_length_bytes, picture_kind, sets_of_header, unit_type

_NAL_CODECS: Final = {"h264", "hevc"}
_BELIEVED: Final = {"mjpeg", "prores", "vp9", "av1"}
"""Each picture stands alone, or the decoder refuses one that lacks what it needs."""
_MPEG: Final = {"mpeg1video": (b"\x00", b"\xb3"), "mpeg2video": (b"\x00", b"\xb3"), "mpeg4": (b"\xb6", b"\xb0\xb5" + bytes(range(0x30)))}
"""Last byte of the start code of a picture, and of those of headers."""
_START: Final = b"\x00\x00\x01"
_SEQUENCE_HEADER_OBU: Final = 1
_LONGEST_LEB128: Final = 8
"""Bytes of a size in AV1 (4.10.5)."""


@dataclass(frozen=True, slots=True)
class PacketSaid:
    """What one packet says."""

    is_key: bool
    """Decoding can start here: container and picture agree."""
    is_reference: bool
    temporal_layer: int
    is_shown: bool = True
    """Whether its picture ever comes out of a decoder."""


class Bitstream:
    """Reads the packets of one stream, in decode order."""

    def __init__(self, stream: VideoStream, *, codec: str) -> None:
        self._codec = codec
        self._extradata = stream.codec_context.extradata
        self._length_bytes = nal_length_bytes(codec, self._extradata)
        self._given = self._sets_of_header()
        self._first: dict[object, bytes] | None = None
        self._number = -1
        is_unreadable = codec not in _NAL_CODECS | _BELIEVED and is_intra(codec, b"\x00\x00\x01" + bytes(20)) is None
        self.whole_from: int | None = 0 if is_unreadable else None
        """Number of the first packet that is not what those before it promised: from the key before it on, none may be left out."""

    def read(self, packet: Packet[VideoStream]) -> PacketSaid:
        """Read the next packet."""
        self._number += 1
        if packet.has_sidedata("new_extradata") and bytes(packet.get_sidedata("new_extradata")) != self._extradata:
            self._distrust()
        is_key = bool(packet.is_keyframe)
        if self._codec in _NAL_CODECS:
            kind = picture_kind(self._codec, memoryview(packet), length_bytes=self._length_bytes)
            # an H.264 "key" packet that is no IDR may be a gradual refresh: decoding from there is not exact
            is_key = is_key and kind.is_start
            if not kind.is_whole:
                self._distrust()
            self._compare({_number(self._codec, unit): unit for unit in kind.parameter_sets}, is_key=is_key)
            return PacketSaid(is_key, kind.is_reference, kind.temporal_layer)
        if self.whole_from is None and (is_key or self._codec in _MPEG or self._codec == "av1"):
            data = bytes(packet)
            is_key = is_key and (self._codec in _BELIEVED or is_intra(self._codec, data) is True)
            headers = _headers(self._codec, data)
            self._compare(headers, is_key=is_key)
            if is_key and not headers and self._codec in ("mpeg1video", "mpeg2video"):
                self._distrust()  # only a sequence header takes back the matrices of an earlier picture
        # VP8 keeps pictures that only others refer to in packets of their own, with a time of their own
        is_shown = self._codec != "vp8" or bool(memoryview(packet)[0] >> 4 & 1)
        return PacketSaid(is_key, is_reference=True, temporal_layer=0, is_shown=is_shown)

    def _distrust(self) -> None:
        self.whole_from = self._number if self.whole_from is None else self.whole_from

    def _sets_of_header(self) -> dict[object, bytes]:
        if self._codec in _NAL_CODECS:
            return {_number(self._codec, unit): unit for unit in sets_of_header(self._codec, self._extradata)}
        return _headers(self._codec, self._extradata or b"")

    def _compare(self, sets: dict[object, bytes], *, is_key: bool) -> None:
        """Note headers that a decoder may lack which starts at any key packet."""
        if self._first is None:
            self._first = {number: unit for number, unit in sets.items() if self._given.get(number) != unit}
            self._given = {**self._given, **sets}
        elif (is_key and any(sets.get(number) != unit for number, unit in self._first.items())) or any(
            self._given.get(number) != unit for number, unit in sets.items()
        ):
            self._distrust()


def is_intra(codec: str, data: bytes) -> bool | None:
    """Whether a picture needs no other; None where that is not read here.

    Args:
        codec: as FFmpeg spells it.
        data: one packet.
    """
    head = int.from_bytes(data[:12].ljust(12, b"\x00"), "big")

    def bits(at: int, count: int) -> int:
        return (head >> (96 - at - count)) & ((1 << count) - 1)

    if codec in ("mpeg1video", "mpeg2video"):
        at = data.find(_START + b"\x00")
        return at >= 0 and at + 5 < len(data) and (data[at + 5] >> 3) & 7 == 1
    if codec == "mpeg4":
        at = data.find(_START + b"\xb6")
        return at >= 0 and at + 4 < len(data) and data[at + 4] >> 6 == 0
    if codec == "msmpeg4v3":
        return bits(0, 2) == 0
    if codec == "vp8":
        return bits(7, 1) == 0
    if codec == "theora":
        return bits(0, 2) == 0
    if codec in ("vp6", "vp6f"):
        return bits(0, 1) == 0
    if codec == "flv1":
        size = bits(30, 3)
        return bits(33 + (16 if size == 0 else 32 if size == 1 else 0), 2) == 0
    return None


def _number(codec: str, unit: bytes) -> object:
    """What tells a parameter set from others of its type: a newer one of the same number takes its place."""
    kind = unit_type(codec, unit[0])
    plain = unit[:12].replace(b"\x00\x00\x03", b"\x00\x00")
    if codec == "hevc":
        # VPS and SPS: their numbers stand behind what varies; a second one counts as a change
        return (kind, _exp_golomb(plain[2:])) if kind == 34 else (kind, 0)
    return kind, _exp_golomb(plain[4:] if kind in (7, 15) else plain[1:])


def _exp_golomb(data: bytes) -> int:
    """The ue(v) that `data` starts with; -1 if it is cut off (ITU-T H.264 9.1)."""
    digits = "".join(f"{byte:08b}" for byte in data)
    zeros = digits.find("1")
    return int(digits[zeros : 2 * zeros + 1], 2) - 1 if zeros >= 0 and 2 * zeros < len(digits) else -1


def _headers(codec: str, data: bytes) -> dict[object, bytes]:
    """Sequence headers in a packet or in the header of a stream."""
    if codec == "av1":
        return _sequence_obus(data[4:] if data[:1] == b"\x81" else data)
    if codec not in _MPEG:
        return {}
    picture, kinds = _MPEG[codec]
    ends = [at for mark in (picture, b"\xb8" if codec != "mpeg4" else b"\xb3") if (at := data.find(_START + mark)) >= 0]
    head = data[: min(ends, default=len(data))]
    starts = [at for at in _starts(head) if head[at + 3] in kinds]
    return {codec: head[starts[0] :].rstrip(b"\x00")} if starts else {}


def _starts(data: bytes) -> list[int]:
    found, at = [], data.find(_START)
    while 0 <= at < len(data) - 3:
        found.append(at)
        at = data.find(_START, at + 3)
    return found


def _sequence_obus(data: bytes) -> dict[object, bytes]:
    found: dict[object, bytes] = {}
    at = 0
    while at < len(data):
        kind, has_extension, has_size = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        at += 1 + has_extension
        size, shift = (0, 0) if has_size else (len(data) - at, 0)
        while has_size and at < len(data):
            if shift == 7 * _LONGEST_LEB128:
                return found  # no decoder reads on
            size |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if not data[at - 1] & 0x80:
                break
        if kind == _SEQUENCE_HEADER_OBU:
            found["av1"] = data[at : at + size]
        at += size
    return found
