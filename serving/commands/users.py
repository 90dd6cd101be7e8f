"""`alchemy users`: people of the service, their roles and the keys of their programs.

Works on the state server that the service uses: REDIS_URL, or the embedded one of the dev profile, which is
started for the moment when no service runs. Passwords are asked for or read from standard input; they are
never arguments, which every user of the machine could see.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from alchemy.console import Json, command, show
from alchemy.errors import BadInput
from alchemy.settings import load_settings

if TYPE_CHECKING:
    from serving.people.people import People
    from serving.people.users import User

users = typer.Typer(no_args_is_help=True, help="People of the service, and keys for programs.")

Name = Annotated[str, typer.Argument(help="The name that the person logs in with.")]
RoleName = Annotated[str, typer.Argument(help="reader, curator or admin.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--access", help="What they may read: jira/HAUL, git/*; again for more. Default: all."),
]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]

_STATE_S = 10.0


@command(users, "add")
def users_add(
    name: Name,
    role: Annotated[str, typer.Option(help="reader, curator or admin.")] = "reader",
    tenant: Annotated[str, typer.Option(help="Tenants see nothing of each other.")] = "default",
    access: Scopes = None,
    password_stdin: FromStdin = False,
    as_json: Json = False,
) -> None:
    """Add a person; asks for the password twice."""
    password = _password(password_stdin)
    made = _with_people(
        lambda people: people.add(name, password, role=role, tenant=tenant, access=_scopes(access)),
        did=f"add {name}",
    )
    show(_shown(made), as_json)


@command(users, "passwd")
def users_passwd(name: Name, password_stdin: FromStdin = False, as_json: Json = False) -> None:
    """Give a person another password; every login of theirs ends."""
    password = _password(password_stdin)

    async def change(people: "People") -> "User":
        return await people.set_password(await people.users.get(name), password)

    show(_shown(_with_people(change, did=f"passwd {name}")), as_json)


@command(users, "role")
def users_role(name: Name, role: RoleName, as_json: Json = False) -> None:
    """Give a person another role; it holds at once, and every login of theirs ends."""
    show(_shown(_change("role", name, role=role)), as_json)


@command(users, "access")
def users_access(name: Name, access: Scopes = None, as_json: Json = False) -> None:
    """Set what a person may read; without --access everything."""
    show(_shown(_change("access", name, access=_scopes(access))), as_json)


@command(users, "tenant")
def users_tenant(name: Name, tenant: str, as_json: Json = False) -> None:
    """Move a person to another tenant; their conversations stay behind and are deleted."""
    show(_shown(_change("tenant", name, tenant=tenant)), as_json)


@command(users, "ls")
def users_ls(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None, as_json: Json = False
) -> None:
    """List the people."""
    show([_shown(user) for user in _with_people(lambda people: people.users.of(tenant))], as_json)


@command(users, "remove")
def users_remove(name: Name, as_json: Json = False) -> None:
    """Delete a person, their keys and their conversations."""
    _with_people(lambda people: people.remove(name), did=f"remove {name}")
    show({"removed": name}, as_json)


@command(users, "key")
def users_key(
    name: Annotated[str, typer.Argument(help="The person whom the program acts for.")],
    label: Annotated[str, typer.Argument(help="What the key is for.")],
    role: Annotated[str, typer.Option(help="At most the person's own.")] = "reader",
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Expires after so many days.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key for a program; it is shown this once."""

    async def create(people: "People") -> dict[str, Any]:
        from serving.people.access import ROLES, lesser

        user = await people.users.get(name)
        if role not in ROLES:
            raise BadInput(f"a role is one of {', '.join(ROLES)}")
        expires_at = None if days is None else time.time() + days * 86400
        key, secret = await people.keys.create(user, label, lesser(role, user.role), expires_at=expires_at)
        return {"id": key.id, "role": key.role, "key": secret}

    show(_with_people(create, did=f"key {name}"), as_json)


@command(users, "keys")
def users_keys(name: Name, as_json: Json = False) -> None:
    """List the keys of a person's programs."""
    keys = _with_people(lambda people: people.keys.of(name))
    show([key.model_dump(exclude={"digest", "user", "since"}) for key in keys], as_json)


@command(users, "revoke")
def users_revoke(name: Name, key_id: str, as_json: Json = False) -> None:
    """Revoke a key."""
    _with_people(lambda people: people.keys.remove(name, key_id), did=f"revoke {name} {key_id}")
    show({"revoked": key_id}, as_json)


def _change(did: str, name: str, **fields: Any) -> "User":
    async def change(people: "People") -> "User":
        return await people.change(await people.users.get(name), **fields)

    return _with_people(change, did=f"{did} {name}")


def _with_people(work: "Callable[[People], Awaitable[Any]]", did: str = "") -> Any:
    """What `work` gives on the service's state server; `did` is noted in the audit log."""
    from serving.options import load_options
    from serving.people.people import open_people
    from serving.state import State
    from serving.valkey import EmbeddedValkey
    from serving.watching.metrics import Metrics

    settings = load_settings()
    valkey = None if settings.redis_url else EmbeddedValkey(settings.cache / "valkey")
    if valkey:
        valkey.start()

    async def run() -> Any:
        state = State(settings.redis_url or (valkey.url if valkey else ""), deadline_s=_STATE_S)
        with closing(open_people(settings, load_options(), state, Metrics())) as people:
            try:
                result = await work(people)
            finally:
                await state.close()
            if did:
                people.audit.record("command_line", did=did)
            return result

    try:
        return asyncio.run(run())
    except ValidationError as error:
        raise BadInput(
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        ) from None
    finally:
        if valkey:
            valkey.stop()


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


def _scopes(access: list[str] | None) -> frozenset[str] | None:
    return frozenset(access) if access else None


def _shown(user: "User") -> dict[str, Any]:
    access = "all" if user.access is None else sorted(user.access)
    return {"name": user.name, "role": user.role, "tenant": user.tenant, "access": access}
