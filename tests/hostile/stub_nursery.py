"""A nursery whose children turn bad on command: a file that starts with `STUB:name` plays the part of an exploit that took over the decoder.

The child has entered the real sandbox by then, and speaks over the real socket. Every other file is decoded as always. Asked for
hardware decoding it enters the weaker sandbox, beside a stand-in for a card: device files that every machine has, and a device kind
that offers no codec.
Run as `python -I stub_nursery.py CANARY PORT FD`.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from av.codec.hwaccel import HWAccel

from detect_core.video import hardware, nursery, wire
from detect_core.video.child import DecodeChild


class Stub:
    """A decoder in the hands of its file."""

    def __init__(self, sock: socket.socket, kind: str, *, canary: str, port: int) -> None:
        self._sock, self._canary, self._port = sock, canary, port
        self._act: Callable[[], Any] = getattr(self, kind)

    def serve(self) -> None:
        wire.receive(self._sock)
        self._act()

    # --- taking time, memory, space

    def hang(self) -> None:
        while True:
            time.sleep(1)

    def spin(self) -> None:
        while True:
            pass

    def eat(self) -> None:
        kept = []
        try:
            while True:
                kept.append(bytearray(64 * 1024 * 1024))
        except MemoryError:
            num = len(kept)
            kept.clear()
            self._say("DecodeResourceError", f"ate {num} x 64 MiB")

    def flood(self) -> None:
        while True:
            self._sock.sendall(b"\xff" * 65536)

    def chatter(self) -> None:
        while True:
            wire.send(self._sock, {"ok": True})

    def trickle(self) -> None:
        self._sock.sendall(b"\x00\x00\x10\x00")
        while True:
            self._sock.sendall(b" ")
            time.sleep(0.05)

    # --- dying

    def segfault(self) -> None:
        ctypes.string_at(0)

    def abort(self) -> None:
        os.abort()

    def leave(self) -> None:
        os._exit(0)

    # --- lying

    def lie(self) -> None:
        self._open_as_real()
        self._give([{**self._frame(0), "offset": 1 << 40, "height": 640, "width": 640}])

    def swell(self) -> None:
        self._open_as_real()
        self._give([{**self._frame(0), "height": 4000, "width": 4000}])

    def nothing_for_ever(self) -> None:
        self._open_as_real()
        while True:
            self._give([], more=True)

    def frames_for_ever(self) -> None:
        self._open_as_real()
        for number in count():
            self._give([self._frame(number)], more=True)

    def all_at_once(self) -> None:
        self._open_as_real()
        self._give([self._frame(number) for number in range(5)])

    def endless(self) -> None:
        self._open_as_real(duration_seconds=float("inf"))

    def countless(self) -> None:
        self._open_as_real(num_packets=float("inf"))

    def uncounted(self) -> None:
        self._open_as_real()
        self._give([{**self._frame(0), "id": float("inf")}])

    def deep(self) -> None:
        payload = b'{"ok":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"
        self._sock.sendall(len(payload).to_bytes(4, "big") + payload)
        self.hang()

    def impostor(self) -> None:
        self._say("SystemExit", "0")

    # --- reaching out; what came of it is told in the message

    def fork(self) -> None:
        self._report(lambda: os.fork() or time.sleep(600))

    def read(self) -> None:
        self._report(lambda: os.open(self._canary, os.O_RDONLY))

    def write(self) -> None:
        self._report(lambda: os.open(self._canary + ".stolen", os.O_CREAT | os.O_WRONLY))

    def connect(self) -> None:
        self._report(lambda: socket.create_connection(("127.0.0.1", self._port)))

    def execute(self) -> None:
        self._report(lambda: os.execv("/bin/sh", ["sh", "-c", f"touch {self._canary}.stolen"]))

    def signal(self) -> None:
        self._report(lambda: os.kill(os.getppid(), 9))

    def trace(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)

        def attach() -> None:
            if libc.ptrace(16, os.getppid(), None, None) != 0:
                raise OSError(ctypes.get_errno(), "ptrace")

        self._report(attach)

    def _report(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as err:
            self._say("UndecodableError", f"refused: {type(err).__name__}")
        else:
            self._say("UndecodableError", "SUCCEEDED")

    def _say(self, error: str, message: str) -> None:
        wire.send(self._sock, {"ok": False, "error": error, "message": message})
        self.hang()

    def _open_as_real(self, **said: Any) -> None:
        info = {"width_px": 64, "height_px": 64, "duration_seconds": 1.0, "num_packets": 1, "num_keyframes": 1, "rotation_degrees": 0}
        kinds = {"codec": "h264", "container": "mov", "pixel_format": "yuv420p", "frame_rate": None, "bit_rate": None, "warnings": []}
        wire.send(self._sock, {"ok": True, "info": {**info, **kinds, **said}, "sandbox": {}})

    def _frame(self, number: int) -> dict[str, Any]:
        return {"id": number, "pts": float(number), "offset": 0, "height": 2, "width": 2, "scale": 1.0}

    def _give(self, frames: list[dict[str, Any]], *, more: bool = False) -> None:
        wire.receive(self._sock)
        wire.send(self._sock, {"ok": True, "frames": frames, "more": more, "warnings": [], **self._usage()})

    def _usage(self) -> dict[str, Any]:
        return {"packets_decoded": 0, "planned": 0, "cpu_seconds": 0.0, "peak_rss_bytes": 0}


def _stand_in(_kind: str) -> hardware.Device:
    wish = HWAccel("qsv")
    return hardware.Device(wish=wish, held=wish, clip=b"")


def main() -> None:
    canary, port = sys.argv[1], int(sys.argv[2])
    sys.argv[1:] = sys.argv[3:]

    def take_over(sock: socket.socket, *, video_fd: int, **rest: Any) -> Any:
        head = os.pread(video_fd, 64, 0)
        if head.startswith(b"STUB:"):
            return Stub(sock, head[5:].split(b"\n")[0].decode(), canary=canary, port=port)
        return DecodeChild(sock, video_fd=video_fd, **rest)

    hardware.driver_files = lambda: ("/dev/null", "/dev/zero")  # type: ignore[assignment]
    hardware.open_device = _stand_in
    nursery.DecodeChild = take_over  # type: ignore[assignment,misc]
    nursery.main()


if __name__ == "__main__":
    main()
