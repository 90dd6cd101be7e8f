"""Checkpoints of a training run in the store: a run that was killed goes on where it was.

Not for adapters: those are artifacts. A checkpoint is one safetensors object, written atomically, so there
is never half of one; its name ends in the digest of its bytes, so a damaged one is known by its name.
"""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from alchemy.store import Store

log = logging.getLogger(__name__)

_KEPT = 2  # the newest, and one to fall back on should that be damaged


@dataclass(frozen=True, slots=True)
class State:
    """What a run carries from one step to the next."""

    step: int  # optimizer steps done
    tensors: dict[str, Any]  # torch tensors, no two of which share memory
    values: dict[str, Any]  # JSON values


class Checkpoints:
    """The checkpoints below one folder of the store, by run.

    A run is named by a fingerprint of all that decides its bytes: whoever finds a checkpoint under the
    same name may go on from it.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self.store = store
        self.folder = folder

    def load(self, run: str) -> State | None:
        """The newest whole checkpoint of the run, its tensors on the CPU; None where there is none."""
        for meta in reversed(self.store.objects(f"{self.folder}/{run}")):
            data = self.store.get(meta.key)
            if PurePosixPath(meta.key).stem.rpartition("-")[2] == _digest(data):
                return _unpack(data)
            log.warning("%s: the checkpoint is damaged and is left out; delete it", meta.key)
        return None

    def save(self, run: str, state: State) -> None:
        """Writes a checkpoint, then deletes those that are no longer needed."""
        before = self.store.objects(f"{self.folder}/{run}")
        data = _pack(state)
        self.store.put(f"{self.folder}/{run}/{state.step:08d}-{_digest(data)}.safetensors", data)
        for meta in before[: 1 - _KEPT]:
            self.store.delete(meta.key)

    def clear(self) -> None:
        """Deletes every checkpoint below the folder, those of runs that were given up as well."""
        for meta in self.store.objects(self.folder):
            self.store.delete(meta.key)
        # Whoever is killed while it writes into a folder store leaves a part of a file that no listing shows.
        folder = self.store.local_path(self.folder)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _pack(state: State) -> bytes:
    from safetensors.torch import save

    # Not orjson, which would make null of a loss that is NaN.
    return save(state.tensors, {"step": str(state.step), "values": json.dumps(state.values)})


def _unpack(data: bytes) -> State:
    from safetensors.torch import load

    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return State(int(header["step"]), load(data), json.loads(header["values"]))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:20]
