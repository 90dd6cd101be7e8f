"""Signed login tokens (JWT, RFC 7519): access tokens for minutes, refresh tokens for days.

The algorithm is pinned and every claim is required. A token names a person, the version of their record and
the login that it belongs to; what they may do is looked up (`credentials`), so that a signed token never
outlives a changed role.
"""

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jwt

from alchemy.settings import Settings

Kind = Literal["access", "refresh"]

ALGORITHM = "HS256"
ISSUER = "data-alchemy"
AUDIENCE = "data-alchemy-api"
_LEEWAY_S = 10  # between the clocks of two replicas
_MAX_CHARACTERS = 2048  # ours have about 400
_REQUIRED = ("exp", "iat", "nbf", "aud", "iss", "jti", "sub", "typ", "sid", "ver")


class BadToken(Exception):
    """The token is not one of ours, or not valid (any more); the message is for the log, not the client."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says."""

    name: str
    version: int  # of the person's record when they logged in
    login: str  # the login that it belongs to; ending it ends all of its tokens
    id: str
    expires: float  # seconds since the epoch


class Tokens:
    """Signs and reads tokens with one secret."""

    def __init__(self, secret: bytes, *, access_s: int, refresh_s: int) -> None:
        self._secret = secret
        self._seconds: dict[Kind, int] = {"access": access_s, "refresh": refresh_s}

    def issue(self, kind: Kind, name: str, version: int, login: str) -> tuple[str, Claims]:
        """A new token, and what it says."""
        now = int(time.time())
        claims = Claims(name, version, login, secrets.token_hex(16), now + self._seconds[kind])
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": name,
            "iat": now,
            "nbf": now,
            "exp": claims.expires,
            "jti": claims.id,
            "typ": kind,
            "sid": login,
            "ver": version,
        }
        return jwt.encode(payload, self._secret, ALGORITHM), claims

    def read(self, token: str, kind: Kind) -> Claims:
        """What a valid token of that kind says. Raises BadToken."""
        if len(token) > _MAX_CHARACTERS:
            raise BadToken("longer than any of ours")
        try:
            payload = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=_LEEWAY_S,
                options={"require": list(_REQUIRED)},
            )
        except jwt.PyJWTError as error:
            raise BadToken(str(error)) from None
        name, version, login = payload["sub"], payload["ver"], payload["sid"]
        if payload["typ"] != kind:
            raise BadToken(f"not a token for {kind}")
        if not (isinstance(version, int) and isinstance(login, str)):
            raise BadToken("claims of other types than ours")
        return Claims(name, version, login, payload["jti"], payload["exp"])


def signing_secret(settings: Settings) -> bytes:
    """ALCHEMY_JWT_SECRET; in the dev profile, where there is none, one that is made once and kept."""
    if settings.jwt_secret:
        return settings.jwt_secret.get_secret_value().encode()
    return _kept_secret(settings.cache / "jwt-secret")


def _kept_secret(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    try:
        os.link(made, path)  # whole or not at all, and never over one that another process made
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return path.read_bytes()
