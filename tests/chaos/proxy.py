"""A small TCP proxy that can freeze or cut its connections: the network between the system and its broker."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time


class Proxy:
    """Forwards one port to another; `freeze` keeps connections open but silent, `slow` delays or trickles, `cut` resets them."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._frozen = threading.Event()
        self._delay_seconds = 0.0
        self._chunk_bytes = 65536
        self._stop = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """From now on nothing passes, in either direction; new connections are accepted and stay silent."""
        self._frozen.set()

    def slow(self, *, delay_seconds: float, chunk_bytes: int = 65536) -> None:
        """From now on every read of at most `chunk_bytes` passes only after `delay_seconds`."""
        self._delay_seconds, self._chunk_bytes = delay_seconds, chunk_bytes

    def turn_to(self, target_port: int) -> None:
        """New connections lead to another server; those that are open stay where they are."""
        self._target_port = target_port

    def heal(self) -> None:
        """Bytes pass again, at full speed, on the connections that are still open."""
        self._frozen.clear()
        self._delay_seconds, self._chunk_bytes = 0.0, 65536

    def cut(self) -> None:
        """Reset every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                    end.close()

    def close(self) -> None:
        self._stop.set()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        while self._frozen.is_set() and not self._stop.is_set():
            time.sleep(0.02)
        try:
            server = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
        except OSError:
            client.close()
            return
        with self._lock:
            self._pairs.append((client, server))
        other = {client: server, server: client}
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError, ValueError):
            for end in other:
                selector.register(end, selectors.EVENT_READ)
            while not self._stop.is_set():
                if self._frozen.is_set():
                    time.sleep(0.02)
                    continue
                for key, _events in selector.select(timeout=0.2):
                    if self._frozen.is_set():
                        break
                    data = key.fileobj.recv(self._chunk_bytes)  # type: ignore[union-attr]
                    if not data:
                        return
                    time.sleep(self._delay_seconds)
                    other[key.fileobj].sendall(data)  # type: ignore[index]
        for end in other:
            end.close()
