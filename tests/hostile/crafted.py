"""Hostile files of our own making: classes of tricks that no public corpus was needed for. Each says what it may end in."""

from __future__ import annotations

import io
import os
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av

from builders import moving_pictures, write_clip, write_tone

VERDICT: Final = "verdict"
_REFUSED: Final = frozenset({"CORRUPT_CONTAINER", "NOT_MEDIA", "DECODE_ERROR", "NO_VIDEO_STREAM"})


@dataclass(frozen=True)
class Crafted:
    """One kind of file."""

    name: str
    make: Callable[[Path], None]
    outcomes: frozenset[str]
    warnings: frozenset[str] = frozenset()
    """At least one of these stands beside a verdict, when any is named."""


# --- building blocks -------------------------------------------------------------------------------------------------


def clip(container: str = "mp4", *, codec: str = "libx264", frames: int = 25, size: tuple[int, int] = (96, 64), **options: object) -> bytes:
    """A well-formed clip."""
    made = io.BytesIO()
    write_clip(made, moving_pictures(frames, size=size), codec=codec, container=container, **options)  # type: ignore[arg-type]
    return made.getvalue()


def fast_start(payload: bytes) -> bytes:
    """The same MP4 with its index before the media: chunk offsets are moved."""
    boxes = dict(top_boxes(payload))
    moov, rest = boxes[b"moov"], [(kind, body) for kind, body in top_boxes(payload) if kind not in (b"moov", b"ftyp")]
    shift = len(moov)
    at = moov.find(b"stco")
    while at >= 0:
        count = struct.unpack_from(">I", moov, at + 8)[0]
        offsets = [struct.unpack_from(">I", moov, at + 12 + 4 * i)[0] + shift for i in range(count)]
        moov = moov[: at + 12] + struct.pack(f">{count}I", *offsets) + moov[at + 12 + 4 * count :]
        at = moov.find(b"stco", at + 4)
    return boxes[b"ftyp"] + moov + b"".join(body for _kind, body in rest)


def top_boxes(payload: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, whole box) of an MP4."""
    found, at = [], 0
    while at + 8 <= len(payload):
        length = struct.unpack_from(">I", payload, at)[0]
        found.append((payload[at + 4 : at + 8], payload[at : at + length]))
        at += max(8, length)
    return found


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def patched(payload: bytes, kind: bytes, offset: int, value: bytes) -> bytes:
    """`payload` with bytes at an offset within the first box of a kind (counted from its name) replaced."""
    at = payload.index(kind) + 4 + offset
    return payload[:at] + value + payload[at + len(value) :]


def vint(value: int, length: int) -> bytes:
    """An EBML size of a fixed length."""
    return (value | 1 << (7 * length)).to_bytes(length, "big")


def ebml(element: str, body: bytes, *, size: int | None = None) -> bytes:
    return bytes.fromhex(element) + vint(len(body) if size is None else size, 8) + body


_EBML_HEAD: Final = ebml("1a45dfa3", ebml("4282", b"matroska") + ebml("4287", b"\x04") + ebml("4285", b"\x02"))


def write(payload: Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(payload()) and None


# --- MP4 -------------------------------------------------------------------------------------------------------------


def nested_boxes(depth: int) -> bytes:
    inner = box(b"trak")
    for _ in range(depth):
        inner = box(b"moov", inner)
    return box(b"ftyp", b"isom\0\0\0\0isom") + inner


def thousands_of_tracks() -> bytes:
    payload = clip()
    [moov] = [body for kind, body in top_boxes(payload) if kind == b"moov"]
    at = moov.index(b"trak") - 4
    trak = moov[at : at + struct.unpack_from(">I", moov, at)[0]]
    bigger = moov[8:] + trak * 3000
    return b"".join(box(b"moov", bigger) if kind == b"moov" else body for kind, body in top_boxes(payload))


def million_boxes() -> bytes:
    return box(b"ftyp", b"isom\0\0\0\0isom") + box(b"free") * 300_000


def edit_list(entries: list[tuple[int, int]]) -> bytes:
    """The clip with its edit list replaced: (duration, media time) per edit."""
    payload = fast_start(clip())
    [moov] = [body for kind, body in top_boxes(payload) if kind == b"moov"]
    elst = box(b"elst", struct.pack(">II", 0, len(entries)), *(struct.pack(">Iii", length, start, 1 << 16) for length, start in entries))
    at = moov.index(b"edts") - 4
    length = struct.unpack_from(">I", moov, at)[0]
    fresh = box(b"edts", elst)
    grown = len(fresh) - length
    trak = moov.index(b"trak") - 4
    moov = moov[:at] + fresh + moov[at + length :]
    for place in (0, trak):
        moov = moov[:place] + struct.pack(">I", struct.unpack_from(">I", moov, place)[0] + grown) + moov[place + 4 :]
    stco = moov.index(b"stco")
    moved = struct.unpack_from(">I", moov, stco + 12)[0] + grown
    moov = moov[: stco + 12] + struct.pack(">I", moved) + moov[stco + 16 :]
    return b"".join(moov if kind == b"moov" else body for kind, body in top_boxes(payload))


def matrix(*values: int) -> bytes:
    """The clip with another transformation matrix in its track header."""
    return patched(clip(), b"tkhd", 40, struct.pack(">9i", *values))


def fragmented() -> bytes:
    made = io.BytesIO()
    with av.open(
        made, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "100000"}
    ) as output:
        stream = output.add_stream("libx264", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for picture in moving_pictures(25, size=(96, 64)):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return made.getvalue()


def overlapping_fragments() -> bytes:
    """The same fragments again and again, with times that go back."""
    boxes = top_boxes(fragmented())
    head = [body for kind, body in boxes if kind in (b"ftyp", b"moov")]
    media = [body for kind, body in boxes if kind in (b"moof", b"mdat")]
    return b"".join(head + media * 8)


def endless_fragment_times() -> bytes:
    """A fragment that claims to start 10^12 ticks later."""
    payload = fragmented()
    at = payload.rindex(b"tfdt")
    is_long = payload[at + 4] == 1
    return (
        payload[: at + 8]
        + (struct.pack(">Q", 10**15) if is_long else struct.pack(">I", 0xFFFFFFFF))
        + payload[at + (16 if is_long else 12) :]
    )


def sps_of(width_mbs: int, height_mbs: int) -> bytes:
    """An H.264 SPS (baseline) that claims a size in macroblocks."""

    def ue(value: int) -> str:
        bits = bin(value + 1)[2:]
        return "0" * (len(bits) - 1) + bits

    bits = (
        f"{66:08b}{0:08b}{62:08b}"
        + ue(0)
        + ue(0)
        + ue(2)
        + ue(1)
        + "0"
        + ue(width_mbs - 1)
        + ue(height_mbs - 1)
        + "1"
        + "1"
        + "0"
        + "0"
        + "1"
    )
    bits += "0" * (-len(bits) % 8)
    return b"\x67" + int(bits, 2).to_bytes(len(bits) // 8, "big")


def transport_stream(*units: bytes) -> bytes:
    """Raw H.264 units in an MPEG transport stream, muxed by hand into one PES."""
    made = io.BytesIO()
    with av.open(made, "w", format="mpegts") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for packet in stream.encode(av.VideoFrame.from_ndarray(moving_pictures(1, size=(96, 64))[0], format="rgb24")):
            output.mux(packet)
        for packet in stream.encode(None):
            output.mux(packet)
        for number, unit in enumerate(units, start=1):
            packet = av.Packet(b"".join(b"\0\0\0\1" + part for part in (unit, bytes([0x65]) + b"\x88\x84" * 200)))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number * 3600, number * 3600, stream.time_base
            output.mux(packet)
    return made.getvalue()


def changing_size() -> bytes:
    """H.264 whose picture size changes in the middle of the stream."""
    parts = [clip("h264", frames=12, size=size) for size in ((96, 64), (320, 240), (64, 96))]
    made = io.BytesIO()
    with av.open(made, "w", format="mpegts") as output, av.open(io.BytesIO(b"".join(parts)), "r", format="h264") as source:
        stream = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.size:
                packet.stream, packet.pts, packet.dts = stream, number * 3600, number * 3600
                output.mux(packet)
    return made.getvalue()


def two_videos(*, cover: bool = False) -> bytes:
    """A harmless first stream, and a second one (or a cover picture) beside it."""
    made = io.BytesIO()
    with av.open(made, "w", format="matroska") as output:
        streams = []
        for codec, size in (("libx264", (96, 64)), ("mjpeg" if cover else "libx264", (64, 64))):
            stream = output.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            streams.append((stream, size))
        if cover:
            streams[1][0].disposition = av.stream.Disposition.attached_pic
        for number in range(10):
            for stream, size in streams[: 2 if number == 0 or not cover else 1]:
                frame = av.VideoFrame.from_ndarray(moving_pictures(1, size=size)[0], format="rgb24")
                frame.pts = number
                output.mux(stream.encode(frame))
        for stream, _size in streams:
            output.mux(stream.encode(None))
    return made.getvalue()


# --- Matroska, AVI, others -------------------------------------------------------------------------------------------


def deep_ebml(depth: int) -> bytes:
    """Groups within groups (SimpleTag), far deeper than any reader expects."""
    inner = b""
    for _ in range(depth):
        inner = ebml("67c8", inner)
    return _EBML_HEAD + ebml("18538067", ebml("1254c367", ebml("7373", inner)))


def ebml_sizes_that_lie() -> bytes:
    return _EBML_HEAD + ebml("18538067", ebml("1654ae6b", b"\xae" * 64, size=(1 << 55)), size=(1 << 56) - 2)


def many_ebml_elements() -> bytes:
    return _EBML_HEAD + ebml("18538067", ebml("ec", b"") * 200_000)


def encrypted_matroska() -> bytes:
    """A track that says it is encrypted; its frames decode all the same."""
    payload = clip("matroska", frames=10)
    tracks = bytes.fromhex("1654ae6b")
    at = payload.index(tracks, payload.index(tracks) + 4)  # the first one is where the index points to it
    tracks_size_at = at + 4
    length = 8 - (payload[tracks_size_at].bit_length() - 1)
    size = int.from_bytes(payload[tracks_size_at : tracks_size_at + length], "big") & ((1 << 7 * length) - 1)
    body = payload[tracks_size_at + length : tracks_size_at + length + size]
    entry_at = body.index(b"\xae", 6 if body.startswith(b"\xbf") else 0)  # any byte may stand in the checksum before the first entry
    entry_length = 8 - (body[entry_at + 1].bit_length() - 1)
    entry_size = int.from_bytes(body[entry_at + 1 : entry_at + 1 + entry_length], "big") & ((1 << 7 * entry_length) - 1)
    entry = body[entry_at + 1 + entry_length : entry_at + 1 + entry_length + entry_size]
    scheme = ebml("5035", ebml("47e1", b"\x05") + ebml("47e2", bytes(16)))
    encodings = ebml("6d80", ebml("6240", ebml("5031", b"\0") + ebml("5032", b"\1") + ebml("5033", b"\1") + scheme))
    body = body[:entry_at] + ebml("ae", entry + encodings) + body[entry_at + 1 + entry_length + entry_size :]
    return payload[:at] + bytes.fromhex("1654ae6b") + vint(len(body), 8) + body + payload[tracks_size_at + length + size :]


def scrambled_transport_stream() -> bytes:
    """Every packet of the picture says that it is scrambled."""
    payload = bytearray(clip("mpegts"))
    for at in range(0, len(payload), 188):
        pid = struct.unpack_from(">H", payload, at + 1)[0] & 0x1FFF
        if pid == 256:
            payload[at + 3] |= 0x80
    return bytes(payload)


def avi_index_that_lies() -> bytes:
    payload = bytearray(clip("avi", codec="mpeg4"))
    at = payload.rindex(b"idx1") + 8
    for entry in range(at, len(payload) - 15, 16):
        struct.pack_into("<II", payload, entry + 8, 0xFFFFFFF0 - entry, 0x7FFFFFFF)
    return bytes(payload)


def avi_of_many_frames_that_are_none() -> bytes:
    """An index that names the same frame 200,000 times."""
    payload = clip("avi", codec="mpeg4", frames=5)
    at = payload.rindex(b"idx1")
    entry = payload[at + 8 : at + 24]
    return payload[:at] + b"idx1" + struct.pack("<I", 16 * 200_000) + entry * 200_000


def ogg_of_nothing() -> bytes:
    page = b"OggS\0\2" + bytes(8) + struct.pack("<IIIB", 1, 0, 0, 255) + b"\xff" * 255 + bytes(255 * 255)
    return page * 12


def polyglot(head: bytes, payload: bytes) -> bytes:
    return head + payload


def gif_of_huge_pictures() -> bytes:
    body = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    picture = b"\x2c" + struct.pack("<HHHH", 0, 0, 65535, 65535) + b"\0\x02\x02\x44\x01\0"
    return body + picture * 50 + b";"


def png_chunk_that_lies() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0x7FFFFFFF) + b"IHDR" + bytes(64)


def random_bytes(seed: int, head: bytes) -> bytes:
    return head + random.Random(seed).randbytes(60_000)


def tone(path: Path) -> None:
    made = path.with_suffix(".wave.mp4")
    write_tone(made, seconds=0.5)
    path.write_bytes(made.read_bytes())
    made.unlink()


def sparse(path: Path) -> None:
    """A file of 3 GB that takes no disk."""
    with path.open("wb") as file:
        file.write(clip())
        os.ftruncate(file.fileno(), 3 * 1024**3)


_UNIT: Final = 1 << 16
_ONE: Final = 1 << 30
_PLAYLIST: Final = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
_PICTURE: Final = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(64)
TOO_LARGE: Final = frozenset({"RESOLUTION_TOO_LARGE", "DECODE_ERROR", "CORRUPT_CONTAINER", "DECODE_RESOURCE_LIMIT"})

CRAFTED: Final = (
    Crafted("mp4-moov-cut-in-the-middle", write(lambda: fast_start(clip())[:400]), frozenset({"CORRUPT_CONTAINER"})),
    Crafted("mp4-media-cut-to-nothing", write(lambda: fast_start(clip())[:-1] [: len(fast_start(clip())) // 3]), _REFUSED | {VERDICT}),
    Crafted("mp4-nested-10000-deep", write(lambda: nested_boxes(10_000)), _REFUSED),
    Crafted("mp4-3000-tracks", write(thousands_of_tracks), frozenset({"TOO_MANY_STREAMS"})),
    Crafted("mp4-300000-boxes", write(million_boxes), _REFUSED),
    Crafted("mp4-duration-zero", write(lambda: patched(clip(), b"mvhd", 16, bytes(4))), frozenset({VERDICT})),
    Crafted("mp4-timescale-zero", write(lambda: patched(clip(), b"mdhd", 12, bytes(4))), _REFUSED | {VERDICT}),
    Crafted("mp4-timescale-one", write(lambda: patched(clip(), b"mdhd", 12, struct.pack(">I", 1))), frozenset({VERDICT, "DURATION_TOO_LONG"})),
    Crafted("mp4-sample-lasts-for-ever", write(lambda: patched(clip(), b"stts", 12, struct.pack(">I", 0x7FFFFFFF))), frozenset({"DURATION_TOO_LONG", VERDICT}) | _REFUSED),
    Crafted("mp4-edit-list-of-nothing", write(lambda: edit_list([(1000, -1)])), _REFUSED | {VERDICT}),
    Crafted("mp4-edit-list-10000-times", write(lambda: edit_list([(40, 0)] * 10_000)), frozenset({"CORRUPT_CONTAINER"})),
    Crafted("mp4-edit-list-negative", write(lambda: edit_list([(0x7FFFFFFF, -0x7FFFFFFF)])), _REFUSED | {VERDICT}),
    Crafted("mp4-matrix-shear", write(lambda: matrix(_UNIT, _UNIT, 0, -_UNIT // 2, _UNIT, 0, 0, 0, _ONE)), frozenset({VERDICT})),
    Crafted("mp4-matrix-zero", write(lambda: matrix(*[0] * 9)), frozenset({VERDICT})),
    Crafted("mp4-matrix-extreme", write(lambda: matrix(*[-(1 << 31)] * 9)), frozenset({VERDICT})),
    Crafted("mp4-stsd-of-65535", write(lambda: patched(clip(), b"avc1", 24, b"\xff\xff\xff\xff")), frozenset({VERDICT}) | TOO_LARGE),
    Crafted("mp4-stsz-two-billion", write(lambda: patched(clip(), b"stsz", 8, struct.pack(">I", 0x7FFFFFFF))), _REFUSED | {VERDICT}),
    Crafted("mp4-stco-beyond-the-end", write(lambda: patched(clip(), b"stco", 8, struct.pack(">I", 0xFFFFFF00))), _REFUSED),
    Crafted("mp4-fragments-overlap", write(overlapping_fragments), frozenset({VERDICT})),
    Crafted("mp4-fragment-far-away", write(endless_fragment_times), frozenset({"DURATION_TOO_LONG", VERDICT})),
    Crafted("mp4-audio-only", tone, frozenset({"NO_VIDEO_STREAM"})),
    Crafted("mp4-3-gb-sparse", sparse, frozenset({VERDICT, "CORRUPT_CONTAINER"})),
    Crafted("ts-sps-65520x65520", write(lambda: transport_stream(sps_of(4095, 4095))), frozenset({VERDICT}) | TOO_LARGE),
    Crafted("ts-sps-16x16", write(lambda: transport_stream(sps_of(1, 1))), frozenset({VERDICT, "DECODE_ERROR", "RESOLUTION_TOO_SMALL"})),
    Crafted("ts-size-changes", write(changing_size), frozenset({VERDICT})),
    Crafted("ts-scrambled", write(scrambled_transport_stream), frozenset({"ENCRYPTED_MEDIA"})),
    Crafted("mkv-second-video", write(two_videos), frozenset({VERDICT}), frozenset({"MULTIPLE_VIDEO_STREAMS"})),
    Crafted("mkv-cover-picture", write(lambda: two_videos(cover=True)), frozenset({VERDICT}), frozenset({"ATTACHED_PICTURE", "MULTIPLE_VIDEO_STREAMS"})),
    Crafted("mkv-encrypted", write(encrypted_matroska), frozenset({"ENCRYPTED_MEDIA"})),
    Crafted("mkv-ebml-2000-deep", write(lambda: deep_ebml(2000)), _REFUSED),
    Crafted("mkv-ebml-sizes-lie", write(ebml_sizes_that_lie), _REFUSED),
    Crafted("mkv-200000-elements", write(many_ebml_elements), _REFUSED),
    Crafted("avi-index-lies", write(avi_index_that_lies), frozenset({VERDICT}) | _REFUSED),
    Crafted("avi-index-200000-times", write(avi_of_many_frames_that_are_none), frozenset({VERDICT, "DURATION_TOO_LONG"}) | _REFUSED),
    Crafted("ogg-of-nothing", write(ogg_of_nothing), _REFUSED),
    Crafted("gif-65535-pictures", write(gif_of_huge_pictures), TOO_LARGE),
    Crafted("png-chunk-lies", write(png_chunk_that_lies), frozenset({"DECODE_ERROR", "IMAGE_ONLY", "CORRUPT_CONTAINER"})),
    Crafted("polyglot-pdf-mp4", write(lambda: polyglot(b"%PDF-1.4\n", clip())), frozenset({"FORMAT_NOT_ALLOWED", "NOT_MEDIA"})),
    Crafted("polyglot-html-mp4", write(lambda: polyglot(b"<script>alert(1)</script>", clip())), frozenset({"NOT_MEDIA"})),
    Crafted("polyglot-zip-behind-mp4", write(lambda: clip() + b"PK\x05\x06" + bytes(18)), frozenset({VERDICT})),
    Crafted("polyglot-playlist-behind-mp4", write(lambda: clip() + _PLAYLIST), frozenset({VERDICT})),
    Crafted("playlist-named-mp4", write(lambda: _PLAYLIST), frozenset({"FORMAT_NOT_ALLOWED"})),
    Crafted("playlist-after-a-bom", write(lambda: b"\xef\xbb\xbf" + _PLAYLIST), frozenset({"FORMAT_NOT_ALLOWED", "NOT_MEDIA"})),
    Crafted("playlist-after-blanks", write(lambda: b"\n" * 3000 + _PLAYLIST), frozenset({"FORMAT_NOT_ALLOWED", "NOT_MEDIA"})),
    Crafted("concat-named-mp4", write(lambda: b"ffconcat version 1.0\nfile /etc/passwd\n"), frozenset({"FORMAT_NOT_ALLOWED"})),
    Crafted("picture-named-mp4", write(lambda: _PICTURE), frozenset({"FORMAT_NOT_ALLOWED"})),
    Crafted("zero-bytes", write(lambda: b""), frozenset({"EMPTY_INPUT"})),
    Crafted("one-byte", write(lambda: b"\0"), frozenset({"NOT_MEDIA"})),
    Crafted("noise-like-mp4", write(lambda: random_bytes(1, box(b"ftyp", b"isom\0\0\0\0isom"))), _REFUSED),
    Crafted("noise-like-mkv", write(lambda: random_bytes(2, _EBML_HEAD)), _REFUSED),
    Crafted("noise-like-avi", write(lambda: random_bytes(3, b"RIFF\xff\xff\xff\x7fAVI LIST")), _REFUSED),
    Crafted("noise-like-flv", write(lambda: random_bytes(4, b"FLV\x01\x05\0\0\0\x09\0\0\0\0")), _REFUSED),
    Crafted("noise-like-ts", write(lambda: b"".join(b"\x47" + random.Random(n).randbytes(187) for n in range(300))), _REFUSED | {"ENCRYPTED_MEDIA"}),
    Crafted("noise-like-mpeg", write(lambda: random_bytes(6, b"\0\0\1\xba")), _REFUSED),
)  # fmt: skip
