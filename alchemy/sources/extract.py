"""Text out of PDF and Office files, in a child process that may be slow, greedy or die.

    with the parent:  Extractor().extract(path, "pdf", options) -> the extracted parts, or Unreadable
    the child:        python -m alchemy.sources.extract_child, one JSON request and answer per line

One child serves many files, because starting one costs a few tenths of a second; it is replaced when it had
to be killed. The limits are a wall clock in the parent and RLIMIT_AS in the child.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from alchemy.settings import CleanOptions
from alchemy.sources.reasons import Unreadable

_START_SECONDS = 60.0
_MAX_ANSWER = 256 << 20
_CRASHES_SHOWN = {-4, -5, -6, -11, -7}  # SIGILL, SIGTRAP, SIGABRT, SIGSEGV, SIGBUS


class Extractor:
    """A child process of this process; safe to share between threads, and after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._memory_mb = 0
        self._first_peak_mb = 0.0

    def extract(self, path: Path, kind: str, options: CleanOptions) -> dict[str, Any]:
        """What the extractor of `kind` (`pdf` or `office`) returns for a file.

        Raises:
            Unreadable: The document's own fault, or `timeout`, `memory_limit`, `extractor_crashed`.
        """
        with self._lock:
            child = self._ready(options.extract_memory_mb)
            request = {"path": str(path), "kind": kind, "max_bytes": options.max_document_bytes}
            try:
                _stdin(child).write(json.dumps(request).encode() + b"\n")
                _stdin(child).flush()
                line = self._line(child, options.extract_seconds)
            except TimeoutError as error:
                self.close()
                detail = f"Extracting text took longer than {options.extract_seconds:g} seconds."
                raise Unreadable("timeout", detail) from error
            except (BrokenPipeError, EOFError) as error:
                raise self._death(child, options.extract_memory_mb) from error
        answer = json.loads(line)
        if answer["full"]:
            self.close()  # what it says of the next file must not depend on this one
        if "refused" in answer:
            raise Unreadable(*answer["refused"])
        return dict(answer["found"])

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def close(self) -> None:
        """Ends the child; the next file starts another."""
        child, self._child = self._child, None
        if child is None:
            return
        if self._owner == os.getpid():
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def _ready(self, memory_mb: int) -> "subprocess.Popen[bytes]":
        child = self._child
        if child and (self._owner != os.getpid() or self._memory_mb != memory_mb or child.poll() is not None):
            self.close()
        if self._child is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            self._child = subprocess.Popen(
                [sys.executable, "-m", "alchemy.sources.extract_child", str(memory_mb)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            self._owner, self._memory_mb = os.getpid(), memory_mb
            # Waited for, so that a file's time does not include the start.
            self._first_peak_mb = int(self._line(self._child, _START_SECONDS)) / 1024
        return self._child

    def _line(self, child: "subprocess.Popen[bytes]", seconds: float) -> bytes:
        assert child.stdout
        deadline = time.monotonic() + seconds
        pieces, size = [], 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
                raise TimeoutError
            piece = os.read(child.stdout.fileno(), 1 << 20)
            size += len(piece)
            if not piece or size > _MAX_ANSWER:
                raise EOFError
            pieces.append(piece)
            if piece.endswith(b"\n"):
                return b"".join(pieces)

    def _death(self, child: "subprocess.Popen[bytes]", memory_mb: int) -> Exception:
        """What to say of a child that is gone: it hit its memory limit, or crashed."""
        try:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode, peak_mb = os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024
        except ChildProcessError:
            peak_mb = 0.0
        code = child.returncode
        self.close()
        # A C++ library that cannot allocate kills itself; the peak tells that from a plain crash.
        grew = peak_mb > max(0.5 * memory_mb, self._first_peak_mb)
        if code == -9 or (code in _CRASHES_SHOWN and grew):
            return Unreadable("memory_limit", f"Extracting text took more than {memory_mb} MB.")
        return Unreadable("extractor_crashed", f"The extractor died with exit status {code}.")


EXTRACTOR = Extractor()
atexit.register(EXTRACTOR.close)


def _stdin(child: "subprocess.Popen[bytes]") -> Any:
    assert child.stdin
    return child.stdin
