"""Password hashes: `pbkdf2_sha256$<iterations>$<salt>$<hash>`, the form that Django writes.

The work is done in threads of its own, few enough that a flood of logins leaves the processor to answers.
A name that does not exist costs the same time as a wrong password, so that names cannot be told by a clock.
"""

import asyncio
import base64
import hashlib
import secrets
import unicodedata
from concurrent.futures import ThreadPoolExecutor

from alchemy.errors import BadInput

ITERATIONS = 600_000  # OWASP's Password Storage Cheat Sheet for PBKDF2-HMAC-SHA256
MIN_CHARACTERS = 12
MAX_CHARACTERS = 256  # what is hashed is bounded before it is hashed
_SCHEME = "pbkdf2_sha256"


def check_strength(password: str, name: str) -> None:
    """Raises BadInput for a password that is too short, too long, of too few characters, or the name."""
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        raise BadInput(f"a password has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters")
    if len(set(password)) < MIN_CHARACTERS // 3 or name.casefold() in password.casefold():
        raise BadInput("that password is too easy: it repeats a few characters, or contains the name")


def hash_password(password: str) -> str:
    """The encoded hash with a fresh salt."""
    salt = secrets.token_urlsafe(16)
    return f"{_SCHEME}${ITERATIONS}${salt}${_derive(password, salt, ITERATIONS)}"


def verify_password(password: str, encoded: str | None) -> bool:
    """Whether the password is the one that was hashed; None, nobody's hash, takes as long and never is."""
    if len(password) > MAX_CHARACTERS:
        return False
    _, iterations, salt, digest = (encoded or f"{_SCHEME}${ITERATIONS}$nobody$").split("$")
    return secrets.compare_digest(_derive(password, salt, int(iterations)), digest)


def is_outdated(encoded: str) -> bool:
    """Whether the hash was made with fewer iterations than are asked for now."""
    return int(encoded.split("$")[1]) < ITERATIONS


class Hasher:
    """Hashes and verifies beside the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, "passwords")

    async def hash(self, password: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._threads, hash_password, password)

    async def verify(self, password: str, encoded: str | None) -> bool:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, verify_password, password, encoded)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _derive(password: str, salt: str, iterations: int) -> str:
    # One form of é, whatever keyboard it came from (NIST SP 800-63B, 5.1.1.2).
    secret = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    return base64.b64encode(hashlib.pbkdf2_hmac("sha256", secret, salt.encode(), iterations)).decode()
