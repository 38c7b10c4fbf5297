"""Runs hijacked decoders (`stub_nursery.py`) beside a harmless video and says what became of both."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builders import moving_pictures, write_clip
from detect_core.errors import DetectCoreError
from detect_core.options import DecodeLimits, HardwareDecode, ScreeningOptions
from detect_core.video.decode import DecodeSession
from detect_core.video.keeper import NurseryKeeper
from hostile.canary import Canary

_STUB = Path(__file__).with_name("stub_nursery.py")
_SHORT_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
ENDS = {
    "hang": "DECODE_TIMEOUT",
    "trickle": "DECODE_TIMEOUT",
    "spin": "DECODE_RESOURCE_LIMIT",
    "eat": "DECODE_RESOURCE_LIMIT",
    "flood": "DECODER_CRASH",
    "chatter": "DECODER_CRASH",
    "segfault": "DECODER_CRASH",
    "abort": "DECODER_CRASH",
    "leave": "DECODE_RESOURCE_LIMIT",
    "lie": "DECODER_CRASH",
    "swell": "DECODER_CRASH",
    "nothing_for_ever": "DECODER_CRASH",
    "frames_for_ever": "DECODER_CRASH",
    "all_at_once": "DECODER_CRASH",
    "endless": "DECODER_CRASH",
    "countless": "DECODER_CRASH",
    "uncounted": "DECODER_CRASH",
    "deep": "DECODER_CRASH",
    "impostor": "DECODER_CRASH",
}
"""What a decoder may turn to, and the code that the video then ends with."""
REACHES = ("fork", "read", "write", "connect", "execute", "signal", "trace")
"""What it may reach for, in vain."""


@dataclass
class World:
    """A hostile nursery, a canary file and a listener that must see nothing."""

    nursery: NurseryKeeper
    canary: Canary
    folder: Path
    clip: Path
    hardware_decode: HardwareDecode = "off"
    threads: int = 1

    @property
    def calls(self) -> list[object]:
        return self.canary.calls

    def num_stolen(self) -> int:
        return len(list(self.canary.file.parent.glob("*.stolen")))

    def stub(self, kind: str) -> Path:
        path = self.folder / f"{kind}.mp4"
        path.write_bytes(f"STUB:{kind}\n".encode())
        return path

    def options(self, *, wall_seconds: float = PATIENCE_SECONDS) -> ScreeningOptions:
        limits = DecodeLimits(wall_seconds=wall_seconds, cpu_seconds=1, memory_bytes=512 * 1024**2, hardware_decode=self.hardware_decode)
        return ScreeningOptions(num_frames=4, decode=limits)

    def decode(self, path: Path, *, wall_seconds: float = PATIENCE_SECONDS) -> int:
        """Decode one file; gives the number of frames. Raises `DetectCoreError`."""
        options = self.options(wall_seconds=wall_seconds)
        with path.open("rb") as file, DecodeSession(file, options=options, nursery=self.nursery, threads=self.threads) as session:
            session.open()
            num_frames, more = 0, True
            while more:
                frames, more = session.next_frames(4)
                num_frames += len(frames)
            return num_frames


@contextlib.contextmanager
def open_world(hardware_decode: HardwareDecode = "off", *, threads: int = 1) -> Iterator[World]:
    """A world of its own, in the usual sandbox, in the one with threads, or in the one beside a graphics driver."""
    with tempfile.TemporaryDirectory() as folder, Canary() as canary:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, moving_pictures(10, size=(64, 64)))
        nursery = NurseryKeeper([str(_STUB), str(canary.file), str(canary.port)])
        try:
            yield World(nursery, canary, Path(folder), clip, hardware_decode, threads)
        finally:
            nursery.close()


def try_stub(world: World, kind: str) -> str | None:
    """Let one decoder turn bad while a neighbour is decoded; None when all went as it must, else what did not."""
    ends: list[str] = []
    # only what waits for ever needs a short deadline; CPU time is slow to come by on a busy machine
    seconds = _SHORT_SECONDS if ENDS[kind] == "DECODE_TIMEOUT" else PATIENCE_SECONDS

    def decode_badly() -> None:
        try:
            ends.append(f"{world.decode(world.stub(kind), wall_seconds=seconds)} frames")
        except DetectCoreError as err:
            ends.append(err.code)

    bad = threading.Thread(target=decode_badly, daemon=True)
    bad.start()
    beside = world.decode(world.clip)
    bad.join(PATIENCE_SECONDS)
    if ends != [ENDS[kind]]:
        return f"{kind}: ended as {ends}, not as {ENDS[kind]}"
    if (beside, world.decode(world.clip)) != (4, 4):
        return f"{kind}: a neighbour was disturbed"
    return None


def try_reach(world: World, kind: str) -> str | None:
    """Let one decoder reach out; None when it was refused."""
    try:
        world.decode(world.stub(kind))
    except DetectCoreError as err:
        if err.code != "DECODE_ERROR" or "refused: PermissionError" not in str(err):
            return f"{kind}: {err.code} {err}"
    else:
        return f"{kind}: gave frames"
    if world.calls or world.num_stolen() or world.decode(world.clip) != 4:
        return f"{kind}: something was touched"
    return None
