"""People and keys, for the admins of a tenant. Of other tenants they learn nothing but that a name is taken.

Nobody gives more than they have: an admin with an access set manages only those who may read no more. Nobody
changes themselves here, so a tenant keeps an admin. A key outlives the password of its person: after a theft
look at the keys too.
"""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from alchemy.errors import Conflict
from serving.people.access import Admin, Principal, Role, covers, lesser
from serving.people.keys import Key
from serving.people.passwords import MAX_CHARACTERS
from serving.people.users import AccessScope, Name, User
from serving.services import Services, services

router = APIRouter(prefix="/api/users", tags=["users"])

_Found = Annotated[Services, Depends(services)]
_Password = Annotated[str, Field(max_length=MAX_CHARACTERS)]
_Scopes = Annotated[list[AccessScope], Field(max_length=1000)]


class NewUser(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"name": "bob", "password": "...", "role": "reader", "access": ["jira/HAUL", "git/*"]}
        },
    )

    name: Name
    password: _Password
    role: Role = "reader"
    access: _Scopes | None = Field(None, description="What they may read; null: everything.")


class Changes(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"role": "curator"}})

    role: Role | None = None
    access: _Scopes | None = Field(None, description="null: everything. Without the field: as it is.")
    password: _Password | None = None
    version: int | None = Field(None, description="As last seen; 409 when somebody changed it since.")


class Shown(BaseModel):
    name: str
    role: Role
    tenant: str
    access: list[str] | None
    version: int
    created_at: float = Field(description="Seconds since the epoch.")
    updated_at: float


class Listed(BaseModel):
    users: list[Shown]


class NewKey(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"label": "nightly report", "expires_in_days": 90}}
    )

    label: str = Field(min_length=1, max_length=100)
    role: Role = Field("reader", description="At most the person's own.")
    expires_in_days: int | None = Field(None, ge=1, le=3650)
    per_minute: int | None = Field(None, ge=1, le=100_000, description="Requests; null: as configured.")


class ShownKey(BaseModel):
    id: str
    label: str
    role: Role
    created_at: float = Field(description="Seconds since the epoch.")
    expires_at: float | None
    per_minute: int | None


class GivenKey(ShownKey):
    key: str = Field(description="What the program sends as its bearer token; shown this once.")


class ListedKeys(BaseModel):
    keys: list[ShownKey]


@router.get("")
async def list_users(admin: Admin, found: _Found) -> Listed:
    """The people of the tenant."""
    return Listed(users=[_shown(user) for user in await found.people.users.of(admin.tenant)])


@router.post("", status_code=201)
async def add_user(body: NewUser, admin: Admin, request: Request, found: _Found) -> Shown:
    """A new person in the admin's tenant."""
    access = None if body.access is None else frozenset(body.access)
    _may_give(admin, access)
    request.state.subject = body.name
    user = await found.people.add(
        body.name, body.password, role=body.role, access=access, tenant=admin.tenant
    )
    return _shown(user)


@router.patch("/{name}")
async def change_user(name: str, body: Changes, admin: Admin, found: _Found) -> Shown:
    """Another role, access or password; it holds at once, and the tokens given out before end."""
    user = await _managed(name, admin, found)
    if body.version not in (None, user.version):
        raise Conflict(f"{user.name} was changed by somebody else meanwhile; look again")
    given = body.model_dump(exclude_unset=True, include={"role", "access"})
    if given.get("role", "") is None:
        del given["role"]
    if "access" in given:
        _may_give(admin, None if body.access is None else frozenset(body.access))
    if body.password is not None:
        user = await found.people.set_password(user, body.password, **given)
    elif given:
        user = await found.people.change(user, **given)
    return _shown(user)


@router.delete("/{name}", status_code=204, response_class=Response)
async def remove_user(name: str, admin: Admin, found: _Found) -> None:
    """Deletes a person, their keys and their conversations."""
    user = await _managed(name, admin, found)
    await found.people.remove(user.name, admin.tenant)


@router.get("/{name}/keys")
async def list_keys(name: str, admin: Admin, found: _Found) -> ListedKeys:
    """The keys of a person's programs, without their secrets."""
    user = await _with_keys(name, admin, found)
    return ListedKeys(keys=[_shown_key(key) for key in await found.people.keys.of(user.name)])


@router.post("/{name}/keys", status_code=201)
async def add_key(name: str, body: NewKey, admin: Admin, request: Request, found: _Found) -> GivenKey:
    """A key for a program that acts for this person. Its secret is shown here and never again."""
    user = await _with_keys(name, admin, found)
    if admin.via == "key":
        raise HTTPException(403, "a key makes no keys: one that leaked would outlive its revocation")
    days = body.expires_in_days
    key, secret = await found.people.keys.create(
        user,
        body.label,
        lesser(body.role, user.role),
        expires_at=None if days is None else time.time() + days * 86400,
        per_minute=body.per_minute,
    )
    request.state.subject = key.id
    return GivenKey(**_shown_key(key).model_dump(), key=secret)


@router.delete("/{name}/keys/{key_id}", status_code=204, response_class=Response)
async def remove_key(name: str, key_id: str, admin: Admin, found: _Found) -> None:
    """Revokes a key."""
    user = await _with_keys(name, admin, found)
    await found.people.keys.remove(user.name, key_id)
    found.people.credentials.forget()


async def _with_keys(name: str, admin: Principal, found: Services) -> User:
    user = await found.people.users.get(name, admin.tenant)
    _may_give(admin, user.access)
    return user


async def _managed(name: str, admin: Principal, found: Services) -> User:
    user = await found.people.users.get(name, admin.tenant)
    if user.name == admin.name:
        raise Conflict("nobody changes themselves here; your password changes at /api/auth/password")
    _may_give(admin, user.access)
    return user


def _may_give(admin: Principal, access: frozenset[str] | None) -> None:
    if not covers(admin.access, access):
        raise HTTPException(403, "that is access to more than you have")


def _shown(user: User) -> Shown:
    access = None if user.access is None else sorted(user.access)
    return Shown(**user.model_dump(include=set(Shown.model_fields) - {"access"}), access=access)


def _shown_key(key: Key) -> ShownKey:
    return ShownKey(**key.model_dump(include=set(ShownKey.model_fields)))
