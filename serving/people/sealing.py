"""Encryption at rest of what people asked and were answered: AES-256-GCM (NIST SP 800-38D).

A sealed row says which key opens it, so keys rotate by putting a new one in front. `about`, whose row it is
and which, is authenticated with it: a row that was copied to another owner's key does not open. Without keys
rows are kept as they are; rows from before the first key stay readable.
"""

import hashlib
import secrets

from alchemy.errors import Unavailable

_MARK = b"\x01"  # no JSON begins with it, and all rows are JSON
_KEY_ID = 4
_NONCE = 12


class Sealing:
    """Seals with the first key and opens with any. Keys are 64 hexadecimal digits each."""

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        raw = [bytes.fromhex(key) for key in keys]
        self._keys = {hashlib.sha256(b"key id" + key).digest()[:_KEY_ID]: key for key in raw}

    def seal(self, plain: bytes, about: str) -> bytes:
        """The row as it is kept; `plain` is JSON."""
        if not self._keys:
            return plain
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key_id, key = next(iter(self._keys.items()))
        nonce = secrets.token_bytes(_NONCE)
        return _MARK + key_id + nonce + AESGCM(key).encrypt(nonce, plain, about.encode())

    def open(self, row: bytes, about: str) -> bytes:
        """What was sealed. Raises Unavailable when no configured key opens it."""
        if not row.startswith(_MARK):
            return row
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        rest = row[len(_MARK) :]
        key_id, nonce, text = rest[:_KEY_ID], rest[_KEY_ID : _KEY_ID + _NONCE], rest[_KEY_ID + _NONCE :]
        if key_id not in self._keys:
            message = f"history was encrypted with key {key_id.hex()}, which is not in ALCHEMY_HISTORY_KEY"
            raise Unavailable(message)
        try:
            return AESGCM(self._keys[key_id]).decrypt(nonce, text, about.encode())
        except (InvalidTag, ValueError):  # ValueError: cut off within the nonce
            raise Unavailable("a row of history was changed or moved, and does not open") from None
