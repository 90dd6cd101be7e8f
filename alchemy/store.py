"""One object store interface over a folder and S3 (any endpoint), built on obstore.

Keys are `/`-separated and never start with one. Every write is atomic: a reader sees the old object or
the new one. `create` and `update` are conditional; all coordination between processes rests on them.
Not for caching or for knowing what the objects mean (see `artifacts`).
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from filelock import FileLock
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PreconditionError,
)
from obstore.store import LocalStore, S3Store

from alchemy.errors import BadConfig, BadInput, Conflict, NotFound, Unavailable

_LOCKS = ".locks"
_CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """What a listing knows of an object. `etag` changes whenever the bytes do; it is not a content hash."""

    key: str
    size: int
    etag: str
    modified: datetime


class Store:
    """Objects by key in a folder or a bucket. Thread-safe; cheap to pickle by `url` and reopen."""

    def __init__(self, url: str, *, endpoint: str | None = None, patience_s: float | None = None) -> None:
        """Opens `s3://bucket[/prefix]`, `file:///path` or a plain folder path.

        `patience_s` is for who would rather hear soon that S3 is gone: the longest silence (seconds), with
        no retries after as long; by default obstore tries for three minutes.
        Credentials for S3 come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION)
        or the machine's role. Raises BadConfig for another scheme.
        """
        self.url = url
        self.endpoint = endpoint
        parts = urlsplit(url)
        self._folder: Path | None = None
        if parts.scheme == "s3":
            bounds, retries = _patience(patience_s)
            client: Any = {"allow_http": bool(endpoint and endpoint.startswith("http://")), **bounds}
            self._inner: Any = S3Store(
                parts.netloc,
                prefix=parts.path.strip("/") or None,
                config={"endpoint": endpoint} if endpoint else {},
                region=os.environ.get("AWS_REGION", "us-east-1"),
                client_options=client,
                retry_config=retries,
            )
        elif parts.scheme in ("", "file"):
            self._folder = Path(parts.path if parts.scheme else url).expanduser().resolve()
            self._folder.mkdir(parents=True, exist_ok=True)
            self.url = str(self._folder)  # a worker process may have another current folder
            self._inner = LocalStore(self._folder, mkdir=True)
        else:
            raise BadConfig(f"store URL {url!r}: use a folder, file:///path or s3://bucket[/prefix]")

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFound."""
        with _errors(key):
            return bytes(obstore.get(self._inner, key).bytes())

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """The object and the etag that `update` wants."""
        with _errors(key):
            result = obstore.get(self._inner, key)
            return bytes(result.bytes()), _etag(result.meta)

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive)."""
        with _errors(key):
            return bytes(obstore.get_range(self._inner, key, start=start, end=end))

    def stream(self, key: str, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """The object in pieces of at least `chunk_bytes` (the last may be smaller)."""
        with _errors(key):
            for piece in obstore.get(self._inner, key).stream(min_chunk_size=chunk_bytes):
                yield bytes(piece)

    def sha256(self, key: str) -> str:
        """Hex sha256 of the object, streamed."""
        digest = hashlib.sha256()
        for piece in self.stream(key):
            digest.update(piece)
        return digest.hexdigest()

    def put(self, key: str, data: bytes | Path) -> None:
        """Writes or replaces the object; a Path is uploaded as a stream."""
        with _errors(key):
            obstore.put(self._inner, _checked(key), data)

    def create(self, key: str, data: bytes) -> None:
        """Writes the object only if there is none. Raises Conflict."""
        with _errors(key):
            obstore.put(self._inner, _checked(key), data, mode="create")

    def update(self, key: str, data: bytes, etag: str) -> None:
        """Replaces the object only if its etag is still `etag`. Raises Conflict."""
        with _errors(key):
            if self._folder is None:
                obstore.put(self._inner, _checked(key), data, mode={"e_tag": etag})
                return
            # A local file system has no conditional rename: every update of a key takes the same lock.
            with self._lock(key):
                if _etag(obstore.head(self._inner, key)) != etag:
                    raise Conflict(f"{key}: changed since it was read")
                obstore.put(self._inner, key, data)

    def head(self, key: str) -> ObjectMeta | None:
        """Size, etag and time of the object, or None where there is none."""
        try:
            with _errors(key):
                return _meta(obstore.head(self._inner, key))
        except NotFound:
            return None

    def objects(self, prefix: str) -> list[ObjectMeta]:
        """Every object below the folder `prefix`, sorted by key (byte order of UTF-8)."""
        with _errors(prefix):
            found = [
                _meta(row)
                for batch in obstore.list(self._inner, prefix=prefix.rstrip("/") or None)
                for row in batch
                if not row["path"].startswith(_LOCKS + "/")
            ]
        return sorted(found, key=lambda meta: meta.key.encode())

    def folders(self, prefix: str) -> list[str]:
        """The names of the folders directly below `prefix`, sorted."""
        with _errors(prefix):
            result = obstore.list_with_delimiter(self._inner, prefix=prefix.rstrip("/") or None)
        names = (path.rstrip("/").rsplit("/", 1)[-1] for path in result["common_prefixes"])
        return sorted(name for name in names if name != _LOCKS)

    def copy(self, source: str, target: str) -> None:
        """Copies inside the store, replacing the target."""
        with _errors(source):
            obstore.copy(self._inner, source, _checked(target))

    def delete(self, key: str) -> None:
        """Removes the object; one that is already gone is fine."""
        try:
            with _errors(key):
                obstore.delete(self._inner, key)
        except NotFound:
            pass

    def download(self, key: str, path: Path) -> None:
        """Streams the object into a file, which appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                for piece in self.stream(key):
                    file.write(piece)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def local_path(self, key: str) -> Path | None:
        """The file behind the key where the store is a folder (for mmap without a copy), else None."""
        return None if self._folder is None else self._folder / key

    def _lock(self, key: str) -> FileLock:
        if self._folder is None:
            raise AssertionError("only a folder store locks")
        name = hashlib.sha256(key.encode()).hexdigest()[:20]
        locks = self._folder / _LOCKS
        locks.mkdir(exist_ok=True)
        return FileLock(locks / name, timeout=30)


def _patience(seconds: float | None) -> tuple[dict[str, Any], Any]:
    """obstore's options of the client and of retries."""
    if seconds is None:
        return {}, None
    silence = timedelta(seconds=seconds)
    # The limit on a whole request would end the download of a large index that is going well.
    bounds = {"connect_timeout": silence, "read_timeout": silence, "timeout": timedelta(hours=1)}
    return bounds, {"retry_timeout": silence, "backoff": {"max_backoff": timedelta(seconds=1)}}


def _checked(key: str) -> str:
    if not key or key.startswith("/") or ".." in key.split("/"):
        raise BadInput(f"store key {key!r}: must be relative and may not contain '..'")
    return key


def _etag(meta: Any) -> str:
    return (meta["e_tag"] or "").strip('"')


def _meta(meta: Any) -> ObjectMeta:
    return ObjectMeta(key=meta["path"], size=meta["size"], etag=_etag(meta), modified=meta["last_modified"])


@contextmanager
def _errors(key: str) -> Iterator[None]:
    """Translates obstore's exceptions into ours; the message names the key."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{key}: no such object") from error
    except (AlreadyExistsError, PreconditionError) as error:
        raise Conflict(f"{key}: created or changed by somebody else") from error
    except ValueError as error:  # not an ObjectStoreError: a control character, for one
        raise BadInput(f"store key {key!r}: {error}") from error
    except BaseError as error:
        raise Unavailable(f"{key}: the object store failed: {error}") from error
