"""A deterministic detector for chaos runs: the score is a hash of the bytes, poison is written in the file.

It lives in the tests only. Like the real one it does part of its work in a child process that can be killed.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from detect_core.errors import DecoderCrashError, DecodeResourceError, DecodeTimeoutError, ScreeningCancelled
from detect_core.structs import DetectorReport, Sampling, Verdict, VideoInfo

POISONS = ("child-segfault", "child-oom", "child-hang", "memory-error", "process-segfault", "process-oom", "process-hang")
CHILD_SECONDS = 0.3
CHILD_TIMEOUT = 1.0
CHILD_NAME = "veriframe-chaos-child"


def media_bytes(video_id: str, *, poison: str | None = None) -> bytes:
    """The file of one chaos video."""
    return f"POISON:{poison}\n{video_id}".encode() if poison else f"video {video_id}".encode()


class HashScreener:
    """Judges by hash. `work_seconds` is slept per video; one in `child_every` runs a child process for a moment."""

    def __init__(self, *, work_seconds: float = 0.005, child_every: int = 40, at: Callable[[str], None] | None = None) -> None:
        self._work_seconds = work_seconds
        self._child_every = child_every
        self._at = at or (lambda _point: None)

    def screen(
        self,
        file: BinaryIO,
        *,
        cancel: threading.Event | None = None,
        deadline_seconds: float = 840.0,
        on_stage: Callable[[str, float, float], None] | None = None,
    ) -> Verdict:
        cancel = cancel or threading.Event()
        content = file.read()
        digest = hashlib.sha256(content).digest()
        started = time.monotonic()
        self._at("before-decode")
        if content.startswith(b"POISON:"):
            self._poison(content.split(b"\n")[0].removeprefix(b"POISON:").decode(), cancel=cancel, deadline=started + deadline_seconds)
        if self._child_every and digest[1] % self._child_every == 0:
            run_child(["sleep", str(CHILD_SECONDS)], cancel=cancel, timeout=20.0)
        self._at("after-decode")
        if on_stage is not None:
            on_stage("decode", time.monotonic() - started, 0.0)
        self._at("before-score")
        if cancel.wait(self._work_seconds):
            raise ScreeningCancelled("cancelled while scoring")
        self._at("after-score")
        if on_stage is not None:
            on_stage("classify", self._work_seconds, 0.0)
        return hash_verdict(digest)

    def close(self) -> None:
        """Nothing to free."""

    def _poison(self, kind: str, *, cancel: threading.Event, deadline: float) -> None:
        if kind == "child-segfault":
            run_child(["sh", "-c", "kill -SEGV $$"], cancel=cancel, timeout=20.0)
        elif kind == "child-oom":
            run_child(["sh", "-c", "kill -KILL $$"], cancel=cancel, timeout=20.0)
        elif kind == "child-hang":
            run_child(["sleep", "600"], cancel=cancel, timeout=CHILD_TIMEOUT)
        elif kind == "memory-error":
            raise MemoryError("a frame of 2 ** 40 bytes")
        elif kind == "process-segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif kind == "process-oom":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "process-hang":  # a loop that listens to nobody
            while time.monotonic() < deadline + 3600:
                time.sleep(0.05)


def run_child(command: list[str], *, cancel: threading.Event, timeout: float) -> None:
    """Run a child as the decoder does: tied to this thread's process, killed at its deadline, its death translated."""
    child = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "VERIFRAME_CHAOS": CHILD_NAME},
    )
    end = time.monotonic() + timeout
    try:
        while child.poll() is None:
            if cancel.is_set():
                raise ScreeningCancelled("cancelled while decoding")
            if time.monotonic() > end:
                raise DecodeTimeoutError(f"decoding took longer than {timeout:g} s and was stopped")
            time.sleep(0.02)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
    if child.returncode in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS):
        raise DecoderCrashError("the decoder crashed on this file")
    if child.returncode == -signal.SIGKILL:
        raise DecodeResourceError("the decode child was killed")


def hash_verdict(digest: bytes) -> Verdict:
    """The verdict that belongs to a hash."""
    p_fake = int.from_bytes(digest[2:6], "big") / 2**32
    word = "manipulated" if p_fake >= 0.9 else "suspicious" if p_fake >= 0.7 else "authentic"
    return Verdict(
        verdict=word,
        p_fake=p_fake,
        reason_codes=(),
        sentence=f"a hash says {p_fake:.3f}",
        video=VideoInfo(
            width_px=64,
            height_px=64,
            duration_seconds=1.0,
            num_packets=25,
            num_keyframes=1,
            codec="hash",
            container="hash",
            pixel_format="rgb24",
            rotation_degrees=0,
        ),
        sampling=Sampling(policy="hash", num_requested=1, num_decoded=1, num_faces=1, pts_seconds=(0.0,)),
        detectors=(DetectorReport(name="hash", version="1", sha256=None, state="scored", p_fake=p_fake),),
        bundle_set="hash@1",
        policy="hash",
        t_review=0.7,
        t_fake=0.9,
        calibration="none",
    )
