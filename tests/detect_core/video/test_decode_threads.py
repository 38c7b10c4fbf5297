"""Decoding in threads: the pictures of one thread or a doubt, whatever the file; and a sandbox that lets threads and nothing else begin."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import moving_pictures, write_clip
from detect_core.errors import DecodeDoubtError, DecodeProtocolError, DetectCoreError
from detect_core.options import ScreeningOptions
from detect_core.video import sandbox, wire
from detect_core.video.decode import DecodeSession
from detect_core.video.doubt import without_doubt
from detect_core.video.sandbox_probe import probe_sandbox
from detect_core.video.stream import EXACT_IN_THREADS, DecodeTally

from .test_decode_exact import ENCODINGS

THREADS = 3
IN_THREADS = {name: recipe for name, recipe in ENCODINGS.items() if name.startswith(tuple(EXACT_IN_THREADS))}
OPTIONS = ScreeningOptions(num_frames=6)


def seen(clip: Path, *, threads: int, first_look: int | None = None) -> Any:
    """What a decode gives: times and pixels of all frames, and warnings; or the error that it ends with."""
    frames, more = [], True
    try:
        with clip.open("rb") as file, DecodeSession(file, options=OPTIONS, threads=threads) as session:
            session.open(first_look=first_look)
            while more:
                window, more = session.next_frames(4)
                frames += [(frame.pts_seconds, frame.scale, frame.image_hwc.tobytes()) for frame in window]
                session.release()
    except DecodeDoubtError:
        assert threads > 1
        return None
    except DetectCoreError as err:
        return repr(err)
    return frames, session.warnings


def in_threads_or_again(clip: Path) -> Any:
    return seen(clip, threads=THREADS) or seen(clip, threads=1)


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_sound_file_gives_the_same_frames_at_once(name, tmp_path):
    recipe = dict(ENCODINGS[name])
    clip = tmp_path / f"clip{recipe.pop('suffix', '.mp4')}"
    write_clip(clip, moving_pictures(60), **recipe)
    for first_look in (None, 3):
        found = seen(clip, threads=THREADS, first_look=first_look)
        assert found == seen(clip, threads=1, first_look=first_look)
        assert len(found[0]) == (first_look or 6)


@pytest.mark.parametrize("name", IN_THREADS)
def test_a_damaged_file_gives_what_one_thread_gives(name, tmp_path):
    recipe, dice = dict(IN_THREADS[name]), random.Random(name)
    suffix = recipe.pop("suffix", ".mp4")
    sound, damaged = tmp_path / f"sound{suffix}", tmp_path / f"damaged{suffix}"
    write_clip(sound, moving_pictures(60), **recipe)
    for _ in range(6):
        content = bytearray(sound.read_bytes())
        for _ in range(dice.choice([1, 3, 20])):
            at = dice.randrange(len(content) - 50)
            content[at : at + 8] = dice.choice([bytes(8), dice.randbytes(8)])
        damaged.write_bytes(content)
        assert in_threads_or_again(damaged) == seen(damaged, threads=1)


def test_a_doubt_of_one_thread_is_a_lie(tmp_path, monkeypatch):
    clip = tmp_path / "clip.mp4"
    write_clip(clip, moving_pictures(10))
    ours, liar = socket.socketpair()
    with ours, liar, clip.open("rb") as file, DecodeSession(file, options=OPTIONS) as session:
        wire.send(liar, {"ok": False, "error": "DecodeDoubtError"})
        monkeypatch.setattr(session._child, "sock", ours)
        with pytest.raises(DecodeProtocolError, match="one thread"):
            session.open()
        monkeypatch.undo()


# --- the wrapper alone


def passing(tally: DecodeTally, *events: Any) -> Iterator[Any]:
    for event in events:
        if isinstance(event, Exception):
            raise event
        if isinstance(event, str):
            tally.warnings.add(event)
        else:
            yield event, None


def test_the_last_frame_waits_for_the_end_of_the_pass():
    tally = DecodeTally(num_planned=2)
    frames = without_doubt(passing(tally, 0.0, 1.0, "DECODE_ERRORS"), tally=tally)
    assert next(frames)[0] == 0.0
    with pytest.raises(DecodeDoubtError, match="DECODE_ERRORS"):
        next(frames)


@pytest.mark.parametrize(
    ("events", "said"),
    [((), "0 of 2"), ((0.0,), "1 of 2"), ((0.0, ValueError("odd")), "odd"), ((0.0, MemoryError()), "MemoryError")],
    ids=["nothing", "too-few", "an-error", "no-memory"],
)
def test_anything_odd_is_a_doubt(events, said):
    tally = DecodeTally(num_planned=2)
    with pytest.raises(DecodeDoubtError, match=said):
        list(without_doubt(passing(tally, *events), tally=tally))


def test_a_frame_that_did_not_come_in_its_turn_is_a_doubt():
    tally = DecodeTally(num_planned=1, num_missed=1)
    with pytest.raises(DecodeDoubtError, match="missing"):
        list(without_doubt(passing(tally, 0.0), tally=tally))


# --- the sandbox with threads

ATTEMPTS = """
import ctypes, json, os, sys, threading
from detect_core.video import sandbox, wire

state = sandbox.enter(memory_bytes=256 * 1024 * 1024, cpu_seconds=5, threads=sys.argv[1] == "yes")
libc = ctypes.CDLL(None, use_errno=True)

def fails(attempt):
    try:
        attempt()
    except (OSError, RuntimeError, MemoryError) as err:
        return type(err).__name__
    return "done"

def clone(flags):
    if libc.syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine], ctypes.c_ulong(flags), 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "clone")

def read_in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(fails(lambda: os.open("/etc/passwd", os.O_RDONLY))))
    thread.start()
    thread.join()
    if found != ["PermissionError"]:
        raise RuntimeError("read a file")

CLONE_VM, SIGHAND, THREAD, NEWUSER, NEWNET, VFORK = 0x100, 0x800, 0x10000, 0x10000000, 0x40000000, 0x4000
results = {
    "fork": fails(os.fork),
    "a process by clone": fails(lambda: clone(17)),
    "a process that shares memory": fails(lambda: clone(CLONE_VM | 17)),
    "vfork": fails(lambda: clone(CLONE_VM | VFORK | 17)),
    "a user namespace": fails(lambda: clone(NEWUSER | 17)),
    "a thread in a network namespace": fails(lambda: clone(CLONE_VM | SIGHAND | THREAD | NEWNET)),
    "run a program": fails(lambda: os.execv("/bin/true", ["true"])),
    "a thread that is as shut in": fails(read_in_a_thread),
}
os.write(1, json.dumps([state.as_json(), results]).encode())
os._exit(0)
"""


@pytest.fixture(scope="module")
def attempts() -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    found = {}
    for threads in ("yes", "no"):
        done = subprocess.run([sys.executable, "-c", ATTEMPTS, threads], capture_output=True, check=True, timeout=60)
        found[threads] = tuple(json.loads(done.stdout))
    if not found["yes"][0]["seccomp"]:
        pytest.skip("this kernel has no seccomp")
    return found


def test_threads_may_begin_and_nothing_else(attempts):
    state, results = attempts["yes"]
    assert state["threads"] is True
    assert state["level"] == sandbox.SandboxState(**{k: v for k, v in attempts["no"][0].items() if k != "level"}).level
    assert results.pop("a thread that is as shut in") == "done"
    assert set(results.values()) == {"PermissionError"}


def test_not_asked_for_no_thread_begins(attempts):
    state, results = attempts["no"]
    assert state["threads"] is False
    assert set(results.values()) <= {"PermissionError", "RuntimeError"}


def test_the_probe_tries_the_sandbox_that_decoders_get():
    alone, beside = probe_sandbox(), probe_sandbox(threads=2)
    assert replace(beside, state={}) == replace(alone, state={})
    assert {**beside.state, "threads": False} == alone.state
    if alone.state["seccomp"]:
        assert beside.state["threads"] is True
