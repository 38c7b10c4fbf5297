"""The nursery: a small clean process that forks one decode child per video in a few milliseconds.

It imports the decoder once, never touches a video itself and stays single-threaded, so forking is safe. It ends when
the worker's end of its socket closes, and its children end with it. Run as `python -m detect_core.video.nursery FD`.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import socket
import sys
from typing import Any

import av
import av.audio.codeccontext
import av.audio.stream
import av.subtitles.codeccontext
import av.subtitles.stream
import cv2
import numpy as np

from ..options import DecodeLimits
from . import hardware, picture, sandbox, wire
from .child import DecodeChild
from .foreign_file import ForeignFile
from .index import index_packets
from .probe import open_container
from .stream import DecodeTally, decode_wanted
from .upright import orientation_of


def main() -> None:
    """Fork children on request until the worker is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    av.logging.set_level(None)
    cv2.setNumThreads(1)
    _rehearse()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        sources: list[Any] = [control, wake_read]
        readable, _, _ = select.select(sources, [], [])
        if wake_read in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                _report_dead(control)
        if control in readable:
            try:
                received = wire.receive(control, max_fds=3)
            except (OSError, wire.WireError):
                received = None
            if received is None:  # the worker is gone
                return
            message, fds = received
            _spawn(control, message, fds, inherited=(wake_read, wake_write))


def _rehearse() -> None:
    """Run the whole decode path once on a clip made here.

    What Python and FFmpeg load on first use is loaded before the sandbox forbids opening files, and the children
    inherit it warm.
    """
    made = io.BytesIO()
    with av.open(made, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for level in (16, 128):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    fd = os.memfd_create("rehearsal")
    try:
        os.write(fd, made.getvalue())
        file, limits = ForeignFile(fd), DecodeLimits()
        opened, video, _ = open_container(file, limits=limits)
        index = index_packets(opened, video, limits=limits)
        for _seconds, frame in decode_wanted(file, (opened, video), index, num_frames=2, limits=limits, tally=DecodeTally()):
            picture.small_rgb(frame, long_side_px=32, orientation=orientation_of(frame))
            picture.cut_squares(frame, centre_xy=(32, 32), squares=[picture.Square(48, 32)])
    finally:
        os.close(fd)


def _spawn(control: socket.socket, message: dict[str, Any], fds: list[int], *, inherited: tuple[int, int]) -> None:
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as err:  # no process or memory is left: that is one child less, and the others go on
        for fd in fds:
            os.close(fd)
        wire.send(control, {"failed": message["ticket"], "reason": f"{type(err).__name__}: {err.strerror}"})
        return
    if pid == 0:
        # whatever happens below, this copy of the process must never return into the nursery's loop
        try:
            _become_child(control, message, fds, inherited=inherited, parent=parent)
        finally:
            os._exit(70)
    for fd in fds:
        os.close(fd)
    wire.send(control, {"spawned": pid, "ticket": message["ticket"]})


def _become_child(control: socket.socket, message: dict[str, Any], fds: list[int], *, inherited: tuple[int, int], parent: int) -> None:
    sandbox.die_with_parent(parent)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    # a damaged file may make C code chatter without end; the nursery's own last words stay readable
    os.dup2(0, 2)
    for fd in inherited:
        os.close(fd)
    sock_fd, video_fd, shm_fd = fds
    sock = socket.socket(fileno=sock_fd)
    memory_bytes, cpu_seconds = int(message["memory_bytes"]), int(message["cpu_seconds"])
    device: hardware.Device | None = None
    if message["hardware_decode"] == "off":
        state = sandbox.enter(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds, threads=int(message["threads"]) > 1)
    else:  # here and not in the nursery: a driver does not survive a fork
        state, device, _ = hardware.close_in(message["hardware_decode"], memory_bytes=memory_bytes, cpu_seconds=cpu_seconds)
    try:
        DecodeChild(sock, video_fd=video_fd, shm_fd=shm_fd, state=state, device=device).serve()
    except (wire.WireError, BrokenPipeError, ConnectionResetError):
        os._exit(1)
    os._exit(0)


def _report_dead(control: socket.socket) -> None:
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        wire.send(
            control,
            {
                "dead": pid,
                "status": os.waitstatus_to_exitcode(status),
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "peak_rss_bytes": usage.ru_maxrss * 1024,
            },
        )


if __name__ == "__main__":
    main()
