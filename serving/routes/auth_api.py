"""Logging in and out: OAuth2's password flow (RFC 6749, 4.3) with rotating refresh tokens."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from alchemy.errors import Conflict
from serving.people.access import Asker, Person, Role
from serving.people.credentials import TICKET_S, Unrecognized
from serving.people.logins import Pair, Replayed
from serving.people.passwords import MAX_CHARACTERS
from serving.people.people import People
from serving.people.tokens import BadToken
from serving.services import Services, services

router = APIRouter(prefix="/api/auth", tags=["login"])

_Found = Annotated[Services, Depends(services)]
_EXAMPLE: dict[str, Any] = {"name": "ann", "role": "curator", "tenant": "default"}


class LoginForm(BaseModel):
    """The form of the password flow; what else OAuth2 clients put into it is ignored."""

    model_config = ConfigDict(json_schema_extra={"example": {"username": "ann", "password": "..."}})

    username: str = Field(max_length=320)
    password: str = Field(max_length=64 << 10, description=f"Up to {MAX_CHARACTERS} characters.")
    grant_type: Literal["password"] | None = None
    scope: str = ""


class Refresh(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"refresh_token": "eyJhbGciOi..."}}
    )

    refresh_token: str


class Who(BaseModel):
    name: str
    role: Role
    tenant: str


class Granted(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "access_token": "eyJhbGciOi...",
                "token_type": "bearer",
                "expires_in": 900,
                "refresh_token": "eyJhbGciOi...",
                "user": _EXAMPLE,
            }
        }
    )

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int = Field(description="Seconds for which the access token is good.")
    refresh_token: str = Field(description="Good for one refresh; using it twice ends the login.")
    user: Who


class Me(Who):
    model_config = ConfigDict(
        json_schema_extra={"example": {**_EXAMPLE, "access": ["jira/HAUL", "git/*"], "login": True}}
    )

    access: list[str] | None = Field(description="What may be read, by source and project; null: everything.")
    login: bool = Field(description="Whether the service asks who is there at all.")


class Mode(BaseModel):
    login: Literal["open", "required"]


class Ticket(BaseModel):
    ticket: str = Field(description="For one connection: /ws/chat?ticket=...")
    expires_in: int


class Passwords(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"old": "...", "new": "..."}})

    old: str = Field(max_length=MAX_CHARACTERS)
    new: str = Field(max_length=MAX_CHARACTERS)


@router.post("/login")
async def login(form: Annotated[LoginForm, Form()], request: Request, found: _Found) -> Granted:
    """Name and password for tokens. 401 says no more than that they do not go together."""
    people = _closed(found.people)
    pair = await people.log_in(form.username, form.password, request.state.client_address)
    return _granted(people, pair)


@router.post("/refresh")
async def refresh(body: Refresh, request: Request, found: _Found) -> Granted:
    """A refresh token for new tokens. It is used up; using it again ends the login of both who have it."""
    people = _closed(found.people)
    try:
        pair = await people.logins.refresh(body.refresh_token)
    except Replayed as error:
        people.credentials.forget()
        people.audit.record("refresh_replayed", user=error.name, address=request.state.client_address)
        raise Unrecognized("the login has ended; log in again") from None
    except BadToken:
        raise Unrecognized("the login has ended; log in again") from None
    return _granted(people, pair)


@router.post("/logout", status_code=204, response_class=Response)
async def logout(asker: Person, found: _Found) -> None:
    """Ends this login: its access tokens and its refresh token."""
    await found.people.logins.end(asker.credential)
    found.people.credentials.forget()
    found.people.audit.record("logout", asker)


@router.get("/me")
async def me(asker: Asker, found: _Found) -> Me:
    """Who is asking, as the service sees it."""
    return Me(
        name=asker.name,
        role=asker.role,
        tenant=asker.tenant,
        access=None if asker.access is None else sorted(asker.access),
        login=not found.people.credentials.is_open,
    )


@router.get("/mode")
async def mode(found: _Found) -> Mode:
    """Whether somebody has to log in; open to all."""
    return Mode(login="open" if found.people.credentials.is_open else "required")


@router.post("/ticket")
async def ticket(asker: Asker, found: _Found) -> Ticket:
    """A word for one WebSocket, whose address may stand in logs where a token must not."""
    return Ticket(ticket=await found.people.credentials.ticket(asker), expires_in=TICKET_S)


@router.post("/password", status_code=204, response_class=Response)
async def password(body: Passwords, asker: Person, request: Request, found: _Found) -> None:
    """Another password. Every login of the person ends, this one too."""
    await found.people.change_password(asker, body.old, body.new, request.state.client_address)


def _closed(people: People) -> People:
    if people.credentials.is_open:
        raise Conflict("nobody needs to log in here (ALCHEMY_AUTH=open)")
    return people


def _granted(people: People, pair: Pair) -> Granted:
    return Granted(
        access_token=pair.access,
        expires_in=people.options.access_token_s,
        refresh_token=pair.refresh,
        user=Who(name=pair.user.name, role=pair.user.role, tenant=pair.user.tenant),
    )
