"""The audit log: who did what, from where, with what outcome, as JSON lines in files that rotate.

Ids and names only: no question, no answer, no secret. A thread of its own writes, so that a slow disk holds
up no request. A full disk fails none either: what cannot be written is counted as lost and named by
`problem` until a line gets through again.
"""

import logging
import os
import queue
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from serving.people.access import Principal
from serving.watching.metrics import Metrics

log = logging.getLogger(__name__)

_WAITING = 10_000  # entries; more are lost
_BATCH = 500
_PATIENCE_S = 5.0


class Audit:
    """Appends entries to `path`; `path`.1 is the file before it, and so on."""

    def __init__(self, path: Path, metrics: Metrics, *, max_bytes: int, files: int) -> None:
        self.path = path
        self.problem: str | None = None  # why entries are being lost
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._files = files
        self._entries: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._writer = threading.Thread(target=self._write_all, name="audit", daemon=True)
        self._writer.start()

    def record(self, event: str, principal: Principal | None = None, **fields: Any) -> None:
        """Notes an event; returns at once and never fails."""
        row: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        if principal:
            row |= {"user": principal.name, "tenant": principal.tenant, "via": principal.via}
            row |= {"credential": principal.credential} if principal.credential else {}
        line = orjson.dumps(row | fields, default=str) + b"\n"
        try:
            self._entries.put_nowait(line)
        except queue.Full:
            self._lost(1, "entries come faster than they can be written")

    def close(self) -> None:
        """Writes what waits, and stops; gives up on a disk that hangs."""
        with suppress(queue.Full):
            self._entries.put(None, timeout=_PATIENCE_S)
            self._writer.join(_PATIENCE_S)

    def _write_all(self) -> None:
        going = True
        while going:
            lines = [self._entries.get()]
            while len(lines) < _BATCH and not self._entries.empty():
                lines.append(self._entries.get())
            going = None not in lines
            self._write([line for line in lines if line is not None])

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._rotate()
            _append(self.path, b"".join(lines))
        except OSError as error:
            self._lost(len(lines), str(error))
            return
        if self.problem:
            log.info("the audit log is written again")
            self.problem = None

    def _rotate(self) -> None:
        try:
            if self.path.stat().st_size < self._max_bytes:
                return
        except FileNotFoundError:
            return
        for number in range(self._files - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self.path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _lost(self, entries: int, reason: str) -> None:
        self._metrics.audit_lost.inc(entries)
        if self.problem is None:
            log.error("audit entries are lost", extra={"reason": reason})
        self.problem = f"audit entries are lost: {reason}"


def _append(path: Path, data: bytes) -> None:
    """Whole lines or none. Opened every time: another process (`alchemy users`) may have rotated the file."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        before, written = os.fstat(file).st_size, 0
        try:
            while written < len(data):
                written += os.write(file, data[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, before)
            raise
    finally:
        os.close(file)
