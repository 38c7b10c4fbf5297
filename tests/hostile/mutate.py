"""Seeded damage to well-formed clips: flipped bytes, cuts, lying box sizes, swapped blocks."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from builders import moving_pictures, write_clip, write_tone

BASES = {
    "h264.mp4": {"options": {"g": "10"}},
    "h264.mkv": {"options": {"g": "10"}},
    "h264.ts": {"options": {"g": "10"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=10:log-level=none"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "13"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.mov": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "flv1.flv": {"codec": "flv"},
    "anim.gif": {"codec": "gif", "pixel_format": "rgb8"},
}


def make_bases(folder: Path) -> list[Path]:
    """Small clips of every accepted kind, and one without a picture."""
    paths = []
    for name, recipe in BASES.items():
        write_clip(folder / name, moving_pictures(20, size=(160, 120)), **recipe)
        paths.append(folder / name)
    write_tone(folder / "tone.mp4", seconds=0.3)
    return [*paths, folder / "tone.mp4"]


def mutate(payload: bytes, *, seed: int) -> bytes:
    """One damaged copy, the same for the same seed."""
    rng = random.Random(seed)
    data = bytearray(payload)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _damage(data, rng)
    return bytes(data)


def _damage(data: bytearray, rng: random.Random) -> None:
    kind = rng.randrange(6)
    # headers decide what a parser believes, so half of the damage goes there
    reach = min(len(data), 2048) if rng.random() < 0.5 else len(data)
    if reach < 16:
        return
    at = rng.randrange(reach - 8)
    if kind == 0:
        for _ in range(rng.choice((1, 8, 64))):
            data[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[rng.randrange(1, len(data)) :]
    elif kind == 2:
        data[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)))
    elif kind == 3:
        length = rng.randrange(1, 512)
        data[at : at + length] = bytes(length)
    elif kind == 4:
        length = rng.randrange(8, 1024)
        data[at:at] = data[at : at + length]
    else:
        other = rng.randrange(reach - 8)
        length = rng.randrange(4, 256)
        data[at : at + length], data[other : other + length] = data[other : other + length], data[at : at + length]
