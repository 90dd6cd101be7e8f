"""Who asks, and what they may do: the principal of a request, and the route dependencies that want one.

A role includes those before it: a reader asks and reads their own, a curator's feedback also teaches, an
admin runs the service. A tenant is a wall: nothing of one is seen from another. The access set limits which
documents exist for a principal; it is applied before ranking. How a request proves whose it is: `guard`.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from fastapi import Depends, HTTPException, Security
from fastapi.security import OAuth2PasswordBearer
from starlette.requests import HTTPConnection

Role = Literal["reader", "curator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

# How a principal was recognized: nobody had to say who they are, the operator's key, a person's login, or a
# program's key.
Via = Literal["open", "operator", "login", "key"]


HOME = "default"  # the tenant that runs the service


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or a program that was recognized."""

    name: str
    role: Role = "reader"
    tenant: str = HOME
    access: frozenset[str] | None = None  # scopes "<source>/<project>" or "<source>/*"; None: everything
    # How it was recognized makes nobody somebody else.
    via: Via = field(default="login", compare=False)
    credential: str = field(default="", compare=False)  # id of the login or key, which is no secret
    version: int = field(default=0, compare=False)  # of their record, which every change ends logins of
    per_minute: int | None = field(default=None, compare=False)  # requests, where the key sets its own limit

    def may(self, role: Role) -> bool:
        """Whether the principal's role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def is_limited(self) -> bool:
        """Whether rates and places are counted: not of the operator, and nowhere where nobody logs in."""
        return self.via not in ("open", "operator")

    @property
    def owner(self) -> str:
        """Whose history it is; a program shares that of its person."""
        return f"{self.tenant}/{self.name}"

    @property
    def caller(self) -> str:
        """What is limited and watched as one: a person, or each of their programs."""
        return f"{self.owner}#{self.credential}" if self.via == "key" else self.owner

    @property
    def access_digest(self) -> str:
        """Equal for those who may read the same documents; what caches are divided by."""
        if self.access is None:
            return "all"
        return hashlib.sha256("\n".join(sorted(self.access)).encode()).hexdigest()[:16]


ANYONE = Principal("anonymous", "admin", via="open")  # where nobody is asked who they are: dev on loopback
OPERATOR = Principal("operator", "admin", via="operator")  # who holds ALCHEMY_API_KEY
NOBODY = Principal("nobody", access=frozenset(), via="open")  # on the paths that are open to all


def lesser(a: Role, b: Role) -> Role:
    """The one of two roles that may less."""
    return min(a, b, key=ROLES.index)


def covers(mine: frozenset[str] | None, theirs: frozenset[str] | None) -> bool:
    """Whether who may read `mine` may give `theirs` to somebody."""
    if mine is None:
        return True
    return theirs is not None and all(
        scope in mine or f"{scope.partition('/')[0]}/*" in mine for scope in theirs
    )


class _Documented(OAuth2PasswordBearer):
    """Names the scheme in the OpenAPI document. `guard` has recognized the principal long before."""

    async def __call__(self, connection: HTTPConnection) -> None:
        return None


_BEARER = _Documented(
    "/api/auth/login",
    scheme_name="bearer",
    refreshUrl="/api/auth/refresh",
    description="An access token of a login, a program's key, or ALCHEMY_API_KEY.",
)


async def principal(connection: HTTPConnection, _: Annotated[None, Security(_BEARER)]) -> Principal:
    """The principal of a request or WebSocket, as `guard` recognized it; a FastAPI dependency."""
    found: Principal = connection.scope["principal"]
    return found


Asker = Annotated[Principal, Depends(principal)]


def needs(role: Role) -> Callable[[HTTPConnection, Principal], Awaitable[Principal]]:
    """A route dependency that gives the principal, and refuses one without that role by 403."""

    async def check(connection: HTTPConnection, found: Asker) -> Principal:
        if not found.may(role):
            raise HTTPException(403, f"this needs the role {role}; yours is {found.role}")
        connection.scope["acted_as"] = role  # for the audit log
        return found

    return check


Curator = Annotated[Principal, Depends(needs("curator"))]
Admin = Annotated[Principal, Depends(needs("admin"))]


async def operator(found: Admin) -> Principal:
    """A route dependency for what all tenants share: releases, models, cycles. Refuses others by 403."""
    if found.tenant != HOME:
        raise HTTPException(403, f"what all tenants share is for the admins of the tenant {HOME}")
    return found


Operator = Annotated[Principal, Depends(operator)]


async def person(found: Asker) -> Principal:
    """A route dependency that wants a person who logged in, not a key: it is about their login."""
    if found.via != "login":
        raise HTTPException(403, "this is for people who logged in with their password")
    return found


Person = Annotated[Principal, Depends(person)]
