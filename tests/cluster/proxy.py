"""A TCP proxy between a worker and its scheduler that can fall silent, in both directions or in one, or hang up."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

FAULTS = ("silent", "deaf", "cut")


class Proxy:
    """Listens on this machine and forwards to ``host:port``; ends with ``close``."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._flowing = {"up": threading.Event(), "down": threading.Event()}
        self._is_cut = False
        self.address = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.mend()
        threading.Thread(target=self._accept, daemon=True).start()

    def fail(self, fault: str) -> None:
        """``silent``: nothing is forwarded; ``deaf``: nothing of what the scheduler says; ``cut``: no connection lives."""
        if fault == "cut":
            self._is_cut = True
            self._hang_up()
            return
        for way in ("down",) if fault == "deaf" else ("up", "down"):
            self._flowing[way].clear()

    def mend(self) -> None:
        """Forward again, what was held back first."""
        self._is_cut = False
        for flowing in self._flowing.values():
            flowing.set()

    def close(self) -> None:
        self._listening.close()
        self.fail("cut")
        self.mend()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                if self._is_cut:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                self._open += [near, far]
                for way, a, b in (("up", near, far), ("down", far, near)):
                    threading.Thread(target=self._forward, args=(way, a, b), daemon=True).start()

    def _forward(self, way: str, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._flowing[way].wait()
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _hang_up(self) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()
