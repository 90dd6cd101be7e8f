"""Who asks, and what they may do: the principal of a request, and the route dependencies that want one.

A role includes those before it: a reader asks and reads their own, a curator's feedback also teaches, an
admin runs the service. A tenant is a wall: nothing of one is seen from another. The access set limits which
documents exist for a principal; it is applied before ranking. How a request proves whose it is: `guard`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastapi import Depends, HTTPException
from starlette.requests import HTTPConnection

Role = Literal["reader", "curator", "admin"]
_ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or a program that was recognized."""

    name: str
    role: Role = "reader"
    tenant: str = "default"
    access: frozenset[str] | None = None  # scopes "<source>/<project>" or "<source>/*"; None: everything

    def may(self, role: Role) -> bool:
        """Whether the principal's role includes `role`."""
        return _ROLES.index(self.role) >= _ROLES.index(role)

    @property
    def access_digest(self) -> str:
        """Equal for those who may read the same documents; what caches are divided by."""
        if self.access is None:
            return "all"
        return hashlib.sha256("\n".join(sorted(self.access)).encode()).hexdigest()[:16]


ANYONE = Principal("anonymous", "admin")  # where no authentication is configured: the dev profile alone


def principal(connection: HTTPConnection) -> Principal:
    """The principal of a request or WebSocket, as `guard` recognized it; a FastAPI dependency."""
    found: Principal = connection.scope["principal"]
    return found


Asker = Annotated[Principal, Depends(principal)]


def needs(role: Role) -> Callable[[Principal], Principal]:
    """A route dependency that gives the principal, and refuses one without that role by 403."""

    def check(found: Asker) -> Principal:
        if not found.may(role):
            raise HTTPException(403, f"this needs the role {role}; yours is {found.role}")
        return found

    return check


Curator = Annotated[Principal, Depends(needs("curator"))]
Admin = Annotated[Principal, Depends(needs("admin"))]
