"""A link that can be cut: a proxy on loopback, so that no test touches the machine's network."""

import contextlib
import socket
import threading
import time


class Link:
    """Passes bytes on between whoever connects and one address, until it is cut or frozen.

    Args:
        target: `HOST:PORT` to pass them on to.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._down_until_s = 0.0
        self._frozen_until_s = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, seconds: float) -> None:
        """Break every connection, and let none be made for a while."""
        with self._lock:
            self._down_until_s = time.monotonic() + seconds
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def freeze(self, seconds: float) -> None:
        """Let nothing through for a while, and tell nobody, as a cable that was pulled."""
        self._frozen_until_s = time.monotonic() + seconds

    def close(self) -> None:
        """Listen no more, and break what there is."""
        self._listener.close()
        self.cut(3600)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._thaw()
        try:
            if time.monotonic() < self._down_until_s:
                raise ConnectionRefusedError
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        with self._lock:
            self._ends |= {near, far}
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._thaw()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._ends.discard(source)
        source.close()

    def _thaw(self) -> None:
        while (left_s := self._frozen_until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.5))
