"""`alchemy users`: people on the state server of the service, with passwords that are no arguments."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import Result
from typer.testing import CliRunner

from alchemy.cli import app
from alchemy.settings import load_settings
from tests.serving.conftest import PASSWORD, Knowledge, Serve, Valkey, bearer

Alchemy = Callable[..., Result]
NEW = "another long password"


@pytest.fixture
def alchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alchemy]:
    """Runs one `alchemy users` command, with what is typed or piped into it."""
    for name in ("ALCHEMY_PROFILE", "ALCHEMY_AUTH", "ALCHEMY_API_KEY", "ALCHEMY_JWT_SECRET", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALCHEMY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, typed: str = "") -> Result:
        load_settings.cache_clear()
        return CliRunner().invoke(app, ["users", *arguments], input=typed)

    yield run
    load_settings.cache_clear()


def value(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def test_the_first_admin_is_made_on_the_embedded_server_which_is_started_for_it(alchemy: Alchemy) -> None:
    made = alchemy("add", "Ann", "--role", "admin", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert made.exit_code == 0, made.output
    assert PASSWORD not in made.output
    assert value(alchemy("ls", "--json")) == [
        {"name": "ann", "role": "admin", "tenant": "default", "access": "all"}
    ]


def test_what_the_commands_change_holds_in_the_running_service(
    alchemy: Alchemy, knowledge: Knowledge, serve: Serve, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", valkey.url)
    monkeypatch.setattr("serving.people.credentials._FRESH_S", 0)
    scopes = ("--access", "jira/HAUL", "--access", "git/*")
    added = alchemy("add", "bob", *scopes, "--password-stdin", "--json", typed=PASSWORD)
    assert value(added)["access"] == ["git/*", "jira/HAUL"]
    with serve(redis_url=valkey.url, settings={"auth": "required"}, ready=False) as service:

        def me(token: str) -> Any:
            response = service.http.get("/api/auth/me", headers=bearer(token))
            return response.json() if response.status_code == 200 else response.status_code

        token = service.log_in("bob")["access_token"]
        assert value(alchemy("role", "bob", "curator", "--json"))["role"] == "curator"
        assert me(token) == 401
        assert value(alchemy("access", "bob", "--json"))["access"] == "all"
        assert value(alchemy("tenant", "bob", "acme", "--json"))["tenant"] == "acme"
        now = me(service.log_in("bob")["access_token"])
        assert (now["role"], now["tenant"], now["access"]) == ("curator", "acme", None)
        assert alchemy("passwd", "bob", "--password-stdin", typed=NEW).exit_code == 0
        token = service.log_in("bob", NEW)["access_token"]
        key = value(alchemy("key", "bob", "nightly report", "--days", "1", "--json"))
        assert me(key["key"])["role"] == "reader"
        listed = value(alchemy("keys", "bob", "--json"))
        assert [(one["id"], one["label"]) for one in listed] == [(key["id"], "nightly report")]
        assert key["key"] not in str(listed)
        assert alchemy("revoke", "bob", key["id"]).exit_code == 0
        assert me(key["key"]) == 401
        assert alchemy("remove", "bob").exit_code == 0
        assert me(token) == 401


@pytest.mark.parametrize(
    ("arguments", "typed", "told"),
    [
        (("add", "eve", "--password-stdin"), "short", "12 to 256 characters"),
        (("add", "eve", "--password-stdin"), "", "12 to 256 characters"),
        (("add", "a b", "--password-stdin"), PASSWORD, "name"),
        (("add", "operator", "--password-stdin"), PASSWORD, "the service's own"),
        (("add", "eve", "--role", "root", "--password-stdin"), PASSWORD, "role"),
        (("add", "eve", "--access", "sap/X", "--password-stdin"), PASSWORD, "a scope is"),
        (("add", "bob", "--password-stdin"), PASSWORD, "is taken"),
        (("role", "bob", "root"), "", "role"),
        (("role", "eve", "admin"), "", "no user eve"),
        (("passwd", "eve", "--password-stdin"), NEW, "no user eve"),
        (("remove", "eve"), "", "no user eve"),
        (("key", "bob", "x", "--role", "root"), "", "a role is one of"),
        (("revoke", "bob", "none"), "", "no key none"),
    ],
)
def test_what_cannot_be_done_is_one_readable_line(
    alchemy: Alchemy,
    valkey: Valkey,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    typed: str,
    told: str,
) -> None:
    monkeypatch.setenv("REDIS_URL", valkey.url)
    assert alchemy("add", "bob", "--password-stdin", typed=PASSWORD).exit_code == 0
    refused = alchemy(*arguments, typed=typed)
    assert refused.exit_code == 1, refused.output
    assert told in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert PASSWORD not in refused.output


def test_two_passwords_that_differ_make_nobody(alchemy: Alchemy, valkey: Valkey, monkeypatch: Any) -> None:
    monkeypatch.setenv("REDIS_URL", valkey.url)
    assert alchemy("add", "bob", typed=f"{PASSWORD}\n{NEW}\n").exit_code != 0
    assert value(alchemy("ls", "--json")) == []


def test_no_command_takes_a_password_as_an_argument(alchemy: Alchemy) -> None:
    for command in ("add", "passwd"):
        assert "--password " not in alchemy(command, "--help").output
