import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import jwt
import orjson
import pytest
import redis

from alchemy.errors import Unavailable
from serving.people import passwords
from serving.people.users import Users
from serving.state import State
from tests.serving.conftest import (
    CHEAP,
    PASSWORD,
    Knowledge,
    Serve,
    Service,
    Valkey,
    bearer,
    eventually,
    person,
)

SECRET = "a secret that is long enough for the other algorithms, too: 64 bytes"
SETTINGS = {"jwt_secret": SECRET}
USERS = [person("ann", "admin"), person("bob"), person("eve", "admin", tenant="other")]
Forge = Callable[..., str]


@pytest.fixture
def service(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> Iterator[Service]:
    knowledge.champion()
    with serve(redis_url=valkey.url, users=USERS, settings=SETTINGS, api_key="s3cret-operator") as service:
        service.http.headers.pop("Authorization")
        yield service


@pytest.fixture
def forge(service: Service) -> Forge:
    """A valid token of bob's with some claims changed or, by None, left out; signed as asked."""
    payload = jwt.decode(service.log_in("bob")["access_token"], options={"verify_signature": False})

    def make(key: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
        claims = {name: value for name, value in (payload | changes).items() if value is not None}
        return jwt.encode(claims, key, algorithm)

    return make


def me(service: Service, token: str) -> httpx.Response:
    return service.http.get("/api/auth/me", headers=bearer(token))


def test_a_person_logs_in_asks_and_is_known(service: Service) -> None:
    pair = service.log_in("ann")
    assert pair["token_type"] == "bearer"
    assert pair["user"] == {"name": "ann", "role": "admin", "tenant": "default"}
    assert me(service, pair["access_token"]).json() == {
        "name": "ann", "role": "admin", "tenant": "default", "access": None, "login": True,
    }  # fmt: skip
    body = {"question": "How often does the gateway retry?"}
    answered = service.http.post("/api/chat", json=body, headers=bearer(pair["access_token"]))
    assert answered.json()["answerable"] is True


def test_names_are_the_same_in_capitals(service: Service) -> None:
    assert service.log_in(" Ann ")["user"]["name"] == "ann"


@pytest.mark.parametrize(
    ("name", "password"),
    [("bob", "wrong"), ("nobody-here", PASSWORD), ("bob", PASSWORD.upper()), ("bób", PASSWORD),
     ("bob\u200b", PASSWORD), ("ｂｏｂ", PASSWORD), ("operator", "s3cret-operator"), ("bob", "x" * 60_000),
     ("*", PASSWORD), ("../users", PASSWORD), ("anonymous", "x")],
)  # fmt: skip
def test_a_wrong_name_or_password_is_refused_in_the_same_words(
    service: Service, name: str, password: str
) -> None:
    response = service.http.post("/api/auth/login", data={"username": name, "password": password})
    assert response.status_code == 401
    assert response.json()["error"]["message"] == "wrong name or password"


def test_without_a_token_nothing_but_the_mode_is_told(service: Service) -> None:
    assert service.http.get("/api/auth/mode").json() == {"login": "required"}
    assert service.http.get("/api/auth/me").status_code == 401
    assert service.http.get("/openapi.json").status_code == 401


def test_in_the_open_mode_nobody_needs_to_log_in(knowledge: Knowledge, serve: Serve) -> None:
    with serve(ready=False) as service:
        assert service.http.get("/api/auth/mode").json() == {"login": "open"}
        assert service.http.get("/api/auth/me").json()["login"] is False
        answer = service.http.post("/api/auth/login", data={"username": "ann", "password": PASSWORD})
        assert answer.status_code == 409


def test_a_forged_token_of_the_right_form_would_be_let_in(service: Service, forge: Forge) -> None:
    assert me(service, forge()).status_code == 200  # or the attacks below would prove nothing


ATTACKS: dict[str, Callable[[Forge], str]] = {
    "no algorithm": lambda forge: forge(key="", algorithm="none"),
    "another algorithm": lambda forge: forge(algorithm="HS512"),
    "another secret": lambda forge: forge(key="x" * 64),
    "a secret of zeros": lambda forge: forge(key="\0" * 64),
    "expired": lambda forge: forge(exp=int(time.time()) - 60),
    "not yet valid": lambda forge: forge(nbf=int(time.time()) + 3600),
    "issued tomorrow": lambda forge: forge(iat=int(time.time()) + 86400),
    "wrong audience": lambda forge: forge(aud="another-service"),
    "wrong issuer": lambda forge: forge(iss="somebody"),
    "a refresh token": lambda forge: forge(typ="refresh"),
    "another login": lambda forge: forge(sid="0" * 32),
    "another version": lambda forge: forge(ver=1),
    "a version as text": lambda forge: forge(ver="1"),
    "a login that is a list": lambda forge: forge(sid=["a"]),
    "a name that is a number": lambda forge: forge(sub=1),
    "a deleted person": lambda forge: forge(sub="nobody-here"),
    "endless": lambda forge: forge(more="x" * 4000),
    "tampered": lambda forge: _with_payload(forge(), sub="ann"),
    "unsigned": lambda forge: forge().rpartition(".")[0] + ".",
    "nonsense": lambda _: "a.b.c",
    "not even ASCII": lambda _: "t\u00f6ken",
    **{f"without {name}": (lambda forge, name=name: forge(**{name: None})) for name in (
        "exp", "iat", "nbf", "aud", "iss", "jti", "sub", "typ", "sid", "ver")},
}  # fmt: skip


def _with_payload(token: str, **changes: Any) -> str:
    head, _, signature = token.split(".")
    payload = jwt.decode(token, options={"verify_signature": False}) | changes
    return f"{head}.{jwt.utils.base64url_encode(orjson.dumps(payload)).decode()}.{signature}"


def test_no_forged_token_is_let_in(service: Service, forge: Forge) -> None:
    for name, attack in ATTACKS.items():
        header = {"Authorization": f"Bearer {attack(forge)}".encode()}
        response = service.http.get("/api/auth/me", headers=header)
        assert response.status_code == 401, name
        assert "SECRET" not in response.text


def test_a_public_key_is_no_shared_secret(service: Service, forge: Forge) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    assert me(service, forge(key=key, algorithm="RS256")).status_code == 401


def test_a_token_in_the_address_is_no_token(service: Service) -> None:
    token = service.log_in("bob")["access_token"]
    for name in ("token", "access_token", "ticket", "authorization"):
        assert service.http.get("/api/auth/me", params={name: token}).status_code == 401


def test_an_oversized_header_is_refused(service: Service) -> None:
    response = service.http.get("/api/auth/me", headers=bearer("x" * 30_000))
    assert response.status_code == 401


def test_refresh_tokens_rotate_and_a_replayed_one_ends_the_login_of_both(service: Service) -> None:
    def refresh(token: str) -> httpx.Response:
        return service.http.post("/api/auth/refresh", json={"refresh_token": token})

    first = service.log_in("bob")
    second = refresh(first["refresh_token"]).json()
    assert me(service, second["access_token"]).status_code == 200
    assert refresh(first["refresh_token"]).status_code == 401  # the thief, or the robbed one
    assert refresh(second["refresh_token"]).status_code == 401
    assert me(service, first["access_token"]).status_code == 401
    assert me(service, second["access_token"]).status_code == 401
    service.log_in("bob")
    assert refresh(first["access_token"]).status_code == 401
    assert any(row["event"] == "refresh_replayed" for row in audit(service))


def test_of_many_refreshes_with_one_token_at_most_one_wins(service: Service) -> None:
    token = service.log_in("bob")["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(
            lambda _: service.http.post("/api/auth/refresh", json={"refresh_token": token}).status_code,
            range(16),
        )
    assert sorted(answers).count(200) == 1


def test_logging_out_ends_this_login_and_no_other(service: Service) -> None:
    here, there = service.log_in("bob"), service.log_in("bob")
    out = service.http.post("/api/auth/logout", headers=bearer(here["access_token"]))
    assert out.status_code == 204
    assert me(service, here["access_token"]).status_code == 401
    body = {"refresh_token": here["refresh_token"]}
    assert service.http.post("/api/auth/refresh", json=body).status_code == 401
    assert me(service, there["access_token"]).status_code == 200


def test_another_role_or_password_ends_what_was_given_out_before(service: Service) -> None:
    admin = service.as_person("ann")
    for change in ({"role": "curator"}, {"access": ["jira/HAUL"]}, {"password": "another long password"}):
        token = service.log_in("bob")["access_token"]
        assert me(service, token).status_code == 200
        assert service.http.patch("/api/users/bob", json=change, headers=admin).status_code == 200
        assert me(service, token).status_code == 401
    bob = me(service, service.log_in("bob", "another long password")["access_token"]).json()
    assert (bob["role"], bob["access"]) == ("curator", ["jira/HAUL"])


def test_a_person_made_again_is_not_the_one_that_was_deleted(service: Service) -> None:
    admin, old = service.as_person("ann"), service.log_in("bob")["access_token"]
    key = service.http.post("/api/users/bob/keys", json={"label": "report"}, headers=admin).json()["key"]
    kept = service.http.post("/api/sessions", json={"title": "mine"}, headers=bearer(old)).json()["id"]
    assert service.http.delete("/api/users/bob", headers=admin).status_code == 204
    assert me(service, old).status_code == me(service, key).status_code == 401
    again = {"name": "bob", "password": PASSWORD}
    assert service.http.post("/api/users", json=again, headers=admin).status_code == 201
    assert me(service, old).status_code == me(service, key).status_code == 401
    assert service.http.get(f"/api/sessions/{kept}", headers=service.as_person("bob")).status_code == 404


def test_a_removal_that_broke_off_can_be_finished_and_leaves_nothing_to_who_comes_next(
    service: Service, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    people, admin = service.app.state.services.people, service.as_person("ann")
    diary = {"title": "private diary"}
    delete_all = people.sessions.delete_all

    async def away(_: str) -> int:
        raise Unavailable("the state server is away")

    async def gone() -> None:
        state = State(valkey.url, deadline_s=10)
        await Users(state).remove("bob")
        await state.close()

    for retried in (True, False):
        service.http.post("/api/sessions", json=diary, headers=service.as_person("bob"))
        monkeypatch.setattr(people.sessions, "delete_all", away)
        assert service.http.delete("/api/users/bob", headers=admin).status_code == 503
        monkeypatch.setattr(people.sessions, "delete_all", delete_all)
        if retried:
            assert service.http.delete("/api/users/bob", headers=admin).status_code == 204
        else:  # as if it had broken off behind the person
            asyncio.run(gone())
        again = {"name": "bob", "password": PASSWORD}
        assert service.http.post("/api/users", json=again, headers=admin).status_code == 201
        assert service.http.get("/api/sessions", headers=service.as_person("bob")).json()["sessions"] == []


def test_ones_own_password_wants_the_old_one(service: Service) -> None:
    headers, new = service.as_person("bob"), "another long password"

    def change(old: str, new: str) -> int:
        return service.http.post(
            "/api/auth/password", json={"old": old, "new": new}, headers=headers
        ).status_code

    assert change("wrong", new) == 401
    assert change(PASSWORD, "short") == 422
    assert change(PASSWORD, new) == 204
    assert service.http.get("/api/auth/me", headers=headers).status_code == 401
    service.log_in("bob", new)


def test_a_login_makes_an_old_hash_stronger_and_ends_nothing(
    service: Service, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterations() -> str:
        with redis.Redis.from_url(valkey.url) as state:
            return str(orjson.loads(state.hget("alchemy:users", "bob"))["password"].split("$")[1])

    token = service.log_in("bob")["access_token"]
    assert iterations() == str(CHEAP)
    monkeypatch.setattr(passwords, "ITERATIONS", CHEAP + 1)
    service.log_in("bob")
    assert iterations() == str(CHEAP + 1)
    assert me(service, token).status_code == 200


def test_too_many_tries_wait_and_do_not_keep_the_person_out_from_elsewhere(
    knowledge: Knowledge, serve: Serve, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.people.attempts._LIMITS", (3600, 5, 900, 50, 900, 20, 900))

    def try_from(address: str, password: str) -> httpx.Response:
        form = {"username": "bob", "password": password}
        return service.http.post("/api/auth/login", data=form, headers={"X-Forwarded-For": address})

    proxies = {"trusted_proxies": "127.0.0.0/8"}
    with serve(redis_url=valkey.url, users=USERS, ready=False, **proxies) as service:
        assert try_from("198.51.100.1", PASSWORD).status_code == 200
        with ThreadPoolExecutor(10) as pool:  # at once is no way around
            answers = list(pool.map(lambda _: try_from("203.0.113.66", "guess"), range(30)))
        assert sorted(answer.status_code for answer in answers) == [401] * 6 + [429] * 24
        late = try_from("203.0.113.66", PASSWORD)
        assert late.status_code == 429  # even the right one
        assert int(late.headers["retry-after"]) >= 1
        assert late.json()["error"]["code"] == "too_many_attempts"
        for number in range(30):  # from a botnet
            try_from(f"203.0.{number}.1", "guess")
        assert try_from("203.0.200.1", PASSWORD).status_code == 429
        assert try_from("198.51.100.1", PASSWORD).status_code == 200
        assert 'logins_total{outcome="limited"}' in service.metrics()


def test_a_made_up_forwarded_address_is_no_new_start(service: Service) -> None:
    statuses = [
        service.http.post(
            "/api/auth/login",
            data={"username": "bob", "password": "guess"},
            headers={"X-Forwarded-For": f"203.0.113.{number}"},
        ).status_code
        for number in range(8)
    ]
    assert statuses == [401] * 6 + [429] * 2


def test_while_the_state_server_is_gone_who_is_known_stays_and_nobody_logs_in(
    knowledge: Knowledge, serve: Serve, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.people.credentials._FRESH_S", 0)
    knowledge.champion()
    with serve(redis_url=valkey.url, users=USERS, settings=SETTINGS) as service:
        known, unseen = service.log_in("bob"), service.log_in("ann")
        assert me(service, known["access_token"]).status_code == 200
        valkey.kill()
        eventually(lambda: "revocation" in service.http.get("/readyz").json()["problems"])
        assert me(service, known["access_token"]).status_code == 200
        assert 'degraded_total{feature="revocation"}' in service.metrics()
        assert me(service, unseen["access_token"]).status_code == 503
        form = {"username": "bob", "password": PASSWORD}
        for response in (
            service.http.post("/api/auth/login", data=form),
            service.http.post("/api/auth/refresh", json={"refresh_token": known["refresh_token"]}),
            service.http.get("/api/sessions", headers=bearer(known["access_token"])),
        ):
            assert response.status_code == 503
            assert "retry-after" in response.headers
        valkey.start()
        eventually(lambda: me(service, unseen["access_token"]).status_code == 200)
        assert "revocation" not in service.http.get("/readyz").json()["problems"]


def test_people_keys_and_conversations_survive_a_killed_state_server(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    with serve(redis_url=valkey.url, users=USERS, settings=SETTINGS, ready=False) as service:
        admin = service.as_person("ann")
        key = service.http.post("/api/users/bob/keys", json={"label": "x"}, headers=admin).json()["key"]
        made = [
            service.http.post("/api/sessions", json={"title": f"talk {n}"}, headers=admin).json()["id"]
            for n in range(20)
        ]
        valkey.kill()
    valkey.start()
    with serve(redis_url=valkey.url, settings={**SETTINGS, "auth": "required"}, ready=False) as service:
        assert service.http.get("/api/auth/me", headers=admin).status_code == 200  # the login too
        assert me(service, key).json()["name"] == "bob"
        kept = service.http.get("/api/sessions", headers=service.as_person("ann")).json()["sessions"]
        assert [session["id"] for session in kept] == made[::-1]


def test_in_the_dev_profile_tokens_survive_a_restart_without_a_secret(
    serve: Serve, valkey: Valkey, tmp_path: Path
) -> None:
    with serve(redis_url=valkey.url, users=USERS, ready=False) as service:
        token = service.log_in("bob")["access_token"]
    secret = tmp_path / "cache" / "jwt-secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    with serve(redis_url=valkey.url, users=USERS, ready=False) as service:
        assert me(service, token).status_code == 200
        secret.write_text("11" * 32)
    with serve(redis_url=valkey.url, users=USERS, ready=False) as service:
        assert me(service, token).status_code == 401


def test_the_rate_is_told_and_kept_with_and_without_the_state_server(serve: Serve, valkey: Valkey) -> None:
    limits = {"requests_per_minute": 5, "ready": False}
    with (
        serve(redis_url=valkey.url, users=USERS, settings=SETTINGS, **limits) as service,
        ExitStack() as stack,
    ):
        bob, ann = service.as_person("bob"), service.as_person("ann")
        first = service.http.get("/api/auth/me", headers=bob)
        assert first.headers["ratelimit-policy"] == '"requests";q=5;w=60'
        assert first.headers["ratelimit"].startswith('"requests";r=4;')
        for _ in range(10):
            last = service.http.get("/api/auth/me", headers=bob)
        assert last.status_code == 429
        assert 1 <= int(last.headers["retry-after"]) <= 60
        assert last.json()["error"]["type"] == "rate_limit_error"
        assert service.http.get("/api/auth/me", headers=ann).status_code == 200
        valkey.kill()
        stack.callback(valkey.start)
        statuses = [service.http.get("/api/auth/me", headers=ann).status_code for _ in range(20)]
        assert statuses.count(200) == 5
        assert set(statuses) == {200, 429}


def test_a_caller_has_so_many_requests_at_once_and_others_have_theirs(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    go, waiting = threading.Event(), threading.Semaphore(0)

    def search(_: str) -> None:
        waiting.release()
        go.wait(60)

    knowledge.behavior.search = search
    knowledge.champion()

    def ask(question: str) -> httpx.Response:  # different ones: the same are answered together
        return service.http.post("/api/chat", json={"question": question}, headers=bob)

    with (
        serve(redis_url=valkey.url, users=USERS, settings=SETTINGS, requests_at_once=2) as service,
        ThreadPoolExecutor(4) as pool,
    ):
        bob, ann = service.as_person("bob"), service.as_person("ann")
        asked = [pool.submit(ask, f"How often does gateway {number} retry?") for number in range(2)]
        for _ in range(2):
            assert waiting.acquire(timeout=60)
        third = ask("Why?")
        assert (third.status_code, third.json()["error"]["code"]) == (429, "too_many_at_once")
        assert service.http.get("/api/auth/me", headers=ann).status_code == 200
        go.set()
        assert [one.result(60).status_code for one in asked] == [200, 200]
        assert service.http.get("/api/auth/me", headers=bob).status_code == 200


def test_answers_that_a_caller_left_behind_take_their_places_and_nobody_elses(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    go = threading.Event()
    knowledge.behavior.search = lambda _: go.wait(60)
    knowledge.champion()

    def leave(number: int) -> int:
        body = {"question": f"How often does gateway {number} retry?", "stream": True}
        with service.http.stream("POST", "/api/chat", json=body, headers=bob) as response:
            return response.status_code

    options = {"requests_at_once": 2, "max_concurrent": 4, "resume_s": 60}
    with serve(redis_url=valkey.url, users=USERS, settings=SETTINGS, **options) as service:
        bob, ann = service.as_person("bob"), service.as_person("ann")
        assert [leave(number) for number in range(4)] == [200, 200, 503, 503]
        go.set()
        assert service.http.post("/api/chat", json={"question": "Why?"}, headers=ann).status_code == 200


def test_every_response_tells_browsers_to_load_nothing_from_elsewhere(service: Service) -> None:
    for path in ("/healthz", "/api/auth/mode", "/api/auth/me", "/nowhere"):
        headers = service.http.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in headers
        assert "strict-transport-security" not in headers  # this is plain HTTP
    assert service.http.get("/api/auth/mode").headers["cache-control"] == "no-store"
    given = service.http.get("/healthz", headers={"X-Request-Id": "trace-1"})
    assert given.headers["x-request-id"] == "trace-1"
    assert service.http.get("/healthz", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"


def test_the_audit_log_tells_who_did_what_and_no_secret(service: Service) -> None:
    admin = service.as_person("ann")
    question = {"question": "How often does the gateway retry my zebra?"}
    answer = service.http.post("/api/chat", json=question, headers=admin).json()
    new = {"name": "carl", "password": "a very long secret word"}
    service.http.post("/api/users", json=new, headers={**admin, "X-Request-Id": "trace-2"})
    service.http.get("/api/users", headers=service.as_person("bob"))
    service.http.post("/api/auth/login", data={"username": "bob", "password": "wrong-guess"})
    wanted = {"login", "answer", "admin", "denied", "login_failed"}
    eventually(lambda: wanted <= {row["event"] for row in audit(service)})
    rows = {row["event"]: row for row in audit(service) if row["event"] != "login"}
    assert rows["answer"]["answer"] == answer["id"]
    assert rows["admin"]["subject"] == "carl"
    assert (rows["admin"]["user"], rows["admin"]["request"]) == ("ann", "trace-2")
    assert (rows["denied"]["user"], rows["denied"]["status"]) == ("bob", 403)
    text = audit_path(service).read_text()
    for secret in (
        "zebra",
        "a very long secret",
        "wrong-guess",
        PASSWORD,
        SECRET,
        admin["Authorization"][7:],
    ):
        assert secret not in text


def test_who_is_refused_again_and_again_is_counted(service: Service) -> None:
    bob = service.as_person("bob")
    for _ in range(25):
        service.http.get("/api/users", headers=bob)
    assert 'anomalies_total{kind="denied"} 1.0' in service.metrics()
    assert service.http.get("/api/auth/me", headers=bob).status_code == 200


def audit_path(service: Service) -> Path:
    path: Path = service.app.state.services.people.audit.path
    return path


def audit(service: Service) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in audit_path(service).read_bytes().splitlines()]
