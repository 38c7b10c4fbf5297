"""A decoder that was taken over by its file: it hangs, floods, lies, forks, writes or dies; each ends typed, in time, alone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builders import moving_pictures, write_clip
from detect_core.errors import (
    DecodeLimitError,
    DecoderCrashError,
    DecodeResourceError,
    DecodeTimeoutError,
    DetectCoreError,
    UndecodableError,
)
from detect_core.options import DecodeLimits, ScreeningOptions
from detect_core.video.decode import DecodeSession
from detect_core.video.keeper import NurseryKeeper
from detect_core.video.sandbox_probe import probe_sandbox

STUB = Path(__file__).with_name("stub_nursery.py")
WALL_SECONDS = 2.0
PATIENCE_SECONDS = 60.0


@dataclass
class World:
    """A hostile nursery, a canary file and a listener that must see nothing."""

    nursery: NurseryKeeper
    canary: Path
    clip: Path
    calls: list[object] = field(default_factory=list)

    def run(self, path: Path, *, wall_seconds: float = PATIENCE_SECONDS) -> int:
        """Decode one file; gives the number of frames.

        Raises:
            DetectCoreError: what became of it.
        """
        limits = DecodeLimits(wall_seconds=wall_seconds, cpu_seconds=1, memory_bytes=512 * 1024**2)
        options = ScreeningOptions(num_frames=4, decode=limits)
        with path.open("rb") as file, DecodeSession(file, options=options, nursery=self.nursery) as session:
            session.open()
            frames, _ = session.next_frames(4)
            return len(frames)

    def stub(self, kind: str) -> Path:
        path = self.canary.with_name(f"{kind}.mp4")
        path.write_bytes(f"STUB:{kind}\n".encode())
        return path


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    if not probe_sandbox().holds:
        pytest.skip("the decode sandbox does not hold on this machine")
    folder = tmp_path_factory.mktemp("stub")
    canary, clip = folder / "canary", folder / "clip.mp4"
    canary.write_text("secret")
    write_clip(clip, moving_pictures(10, size=(64, 64)))
    server = socket.create_server(("127.0.0.1", 0))
    made = World(NurseryKeeper([str(STUB), str(canary), str(server.getsockname()[1])]), canary, clip)

    def accept() -> None:
        while True:
            try:
                made.calls.append(server.accept()[1])
            except OSError:
                return

    listening = threading.Thread(target=accept)
    listening.start()
    yield made
    made.nursery.close()
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    listening.join()


ENDS = {
    "hang": DecodeTimeoutError,
    "trickle": DecodeTimeoutError,
    "spin": DecodeResourceError,
    "eat": DecodeResourceError,
    "flood": DecoderCrashError,
    "chatter": DecoderCrashError,
    "segfault": DecoderCrashError,
    "abort": DecoderCrashError,
    "leave": DecodeResourceError,
    "lie": DecoderCrashError,
    "nothing_for_ever": DecoderCrashError,
    "impostor": DecoderCrashError,
}


@pytest.mark.hostile
@pytest.mark.parametrize(("kind", "error"), ENDS.items())
def test_a_decoder_that_turns_bad_ends_typed_and_alone(world, kind, error):
    failures: list[DetectCoreError] = []
    started = time.monotonic()

    def decode_badly() -> None:
        try:
            # only what waits for ever needs a short deadline; CPU time is slow to come by on a busy machine
            world.run(world.stub(kind), wall_seconds=WALL_SECONDS if error is DecodeTimeoutError else PATIENCE_SECONDS)
        except DetectCoreError as err:
            failures.append(err)

    bad = threading.Thread(target=decode_badly)
    bad.start()
    assert world.run(world.clip) == 4  # a neighbour in the same nursery meanwhile
    bad.join(PATIENCE_SECONDS)
    assert not bad.is_alive()
    [failure] = failures
    assert isinstance(failure, DecodeLimitError)
    assert failure.code == error.code, failure
    assert time.monotonic() - started < PATIENCE_SECONDS
    assert world.run(world.clip) == 4  # and one afterwards


REACHES = ["fork", "read", "write", "connect", "execute", "signal", "trace"]


@pytest.mark.hostile
@pytest.mark.parametrize("kind", REACHES)
def test_a_decoder_that_reaches_out_finds_nothing(world, kind):
    with pytest.raises(UndecodableError, match="refused: PermissionError"):
        world.run(world.stub(kind))
    assert world.run(world.clip) == 4
    assert world.calls == []
    assert not world.canary.with_name("canary.stolen").exists()


@pytest.mark.hostile
def test_no_child_is_left(world):
    limits = DecodeLimits(wall_seconds=0.5)
    with world.stub("hang").open("rb") as file:
        session = DecodeSession(file, options=ScreeningOptions(decode=limits), nursery=world.nursery)
        with pytest.raises(DecodeTimeoutError):
            session.open()
        session.close()
    assert session._child.dead.wait(PATIENCE_SECONDS)
    assert not Path(f"/proc/{session._child.pid}").exists()
