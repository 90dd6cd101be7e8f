"""The authorization matrix: every route of the app, by everybody who might try it.

A route that is not in the table fails the test: who adds one says here who may use it.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIWebSocketRoute, iter_route_contexts
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from tests.serving.conftest import PASSWORD, Knowledge, Serve, Service, Valkey, bearer, handshake, person

OPERATOR = "s3cret-operator-key"
SETTINGS = {"jwt_secret": "a secret of at least thirty-two bytes"}
SCOPED = frozenset({"jira/HAUL"})
USERS = [
    person("reader", access=SCOPED),
    person("curator", "curator"),
    person("admin", "admin"),
    person("boss", "admin"),  # whom nothing is done to
    person("scoped-admin", "admin", access=SCOPED),
    person("their-reader", tenant="other"),
    person("their-admin", "admin", tenant="other"),
]
WHO = ("nobody", "reader", "curator", "admin", "operator", "program", "their-reader", "their-admin")

EVERYBODY = set(WHO)
KNOWN = EVERYBODY - {"nobody"}
ADMINS = {"admin", "operator", "their-admin"}
CURATORS = {*ADMINS, "curator"}
OPERATORS = {"admin", "operator"}  # of the tenant that runs the service
PEOPLE = KNOWN - {"operator", "program"}  # who logged in with a password

# Who gets through to the route. What it then says (200, or that there is no such answer) is anything but 401
# and 403, which the others are told.
ROUTES: dict[str, set[str]] = {
    "GET /": EVERYBODY,
    "FILES /static": EVERYBODY,
    "GET /healthz": EVERYBODY,
    "GET /readyz": EVERYBODY,
    "GET /metrics": EVERYBODY,
    "GET /openapi.json": KNOWN,
    "POST /api/auth/login": EVERYBODY,
    "POST /api/auth/refresh": EVERYBODY,
    "GET /api/auth/mode": EVERYBODY,
    "GET /api/auth/me": KNOWN,
    "POST /api/auth/ticket": KNOWN,
    "POST /api/auth/password": PEOPLE,
    "POST /api/auth/logout": PEOPLE,
    "GET /api/users": ADMINS,
    "POST /api/users": ADMINS,
    "PATCH /api/users/{name}": ADMINS,
    "DELETE /api/users/{name}": ADMINS,
    "GET /api/users/{name}/keys": ADMINS,
    "POST /api/users/{name}/keys": ADMINS,
    "DELETE /api/users/{name}/keys/{key_id}": ADMINS,
    "GET /api/sessions": KNOWN,
    "POST /api/sessions": KNOWN,
    "GET /api/sessions/{session_id}": KNOWN,
    "PATCH /api/sessions/{session_id}": KNOWN,
    "DELETE /api/sessions/{session_id}": KNOWN,
    "GET /api/history": KNOWN,
    "DELETE /api/history": KNOWN,
    "POST /api/chat": KNOWN,
    "GET /api/answers/{answer_id}/events": KNOWN,
    "DELETE /api/answers/{answer_id}": KNOWN,
    "WS /ws/chat": KNOWN,
    "POST /api/feedback": KNOWN,
    "GET /api/feedback": CURATORS,
    "POST /api/feedback/{feedback_id}/approve": CURATORS,
    "GET /v1/models": KNOWN,
    "POST /v1/chat/completions": KNOWN,
    "POST /v1/embeddings": KNOWN,
    "POST /ingest": CURATORS,
    "POST /query": KNOWN,
    "GET /v1/answers/{answer_id}": KNOWN,
    "GET /v1/answers/{answer_id}/lineage": KNOWN,
    "GET /v1/answers/{answer_id}/citations/{number}": KNOWN,
    "POST /api/models/reload": OPERATORS,
    "GET /api/releases": OPERATORS,
    "GET /api/releases/{release_id}": OPERATORS,
    "GET /api/releases/{before}/diff/{after}": OPERATORS,
    "POST /api/releases/{release_id}/promote": OPERATORS,
    "POST /api/releases/{release_id}/pin": OPERATORS,
    "POST /api/releases/rollback": OPERATORS,
    "POST /api/releases/unpin": OPERATORS,
    "POST /api/jobs/full-cycle": OPERATORS,
    "GET /api/jobs/{run_id}": OPERATORS,
    "GET /api/cache": ADMINS,
    "DELETE /api/cache": ADMINS,
    "DELETE /api/cache/documents/{document_id:path}": ADMINS,
}
WITH_CREDENTIALS = {"POST /api/auth/login", "POST /api/auth/refresh"}  # these have them in their body
BODIES: dict[str, dict[str, Any]] = {"POST /api/chat": {"question": "How often does the gateway retry?"}}


@pytest.fixture
def service(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> Iterator[Service]:
    knowledge.champion()
    with serve(redis_url=valkey.url, users=USERS, settings=SETTINGS, api_key=OPERATOR) as service:
        service.http.headers.pop("Authorization")
        yield service


def routes(service: Service) -> list[str]:
    """ "GET /path" of every route, "WS /path" of WebSockets, "FILES /path" of mounted files."""
    found = set()
    for route in iter_route_contexts(service.app.routes):
        kind = {"APIWebSocketRoute": "WS", "Mount": "FILES"}.get(type(route.original_route).__name__)
        methods = {kind} if kind else (route.methods or set()) - {"HEAD", "OPTIONS"}
        found |= {f"{method} {route.path}" for method in methods}
    return sorted(found)


def ask(service: Service, route: str, headers: dict[str, str]) -> int:
    """The status that a request to the route gets, with ids of nothing that exists."""
    method, _, path = route.partition(" ")
    path = re.sub(r"\{\w+(:\w+)?\}", "none-such", path)
    if method == "FILES":
        method, path = "GET", f"{path}/none-such"
    if method != "WS":
        return service.http.request(method, path, json=BODIES.get(route, {}), headers=headers).status_code
    return handshake(service, path, headers)


def credentials(service: Service) -> dict[str, Callable[[], dict[str, str]]]:
    """Fresh headers of everybody: a route may log somebody out."""
    label = {"label": "report", "role": "reader"}
    admin = service.as_person("boss")
    key = service.http.post("/api/users/reader/keys", json=label, headers=admin).json()["key"]
    people: dict[str, Callable[[], dict[str, str]]] = {
        name: (lambda name=name: service.as_person(name))
        for name in ("reader", "curator", "admin", "their-reader", "their-admin")
    }
    return people | {
        "nobody": dict,
        "operator": lambda: bearer(OPERATOR),
        "program": lambda: bearer(key),
    }


def test_every_route_lets_in_whom_it_should_and_nobody_else(service: Service) -> None:
    assert routes(service) == sorted(ROUTES), "say in ROUTES who may use a new route"
    headers = credentials(service)
    assert set(headers) == EVERYBODY
    wrong = []
    for route, allowed in ROUTES.items():
        for who in WHO:
            status = ask(service, route, headers[who]())
            got_in = status not in (401, 403)
            if route in WITH_CREDENTIALS:
                got_in = status == 422  # the body is what is wrong
            refused = 401 if who == "nobody" else 403
            fault = status >= 500 and status != 503  # Dagster, say, is not there
            if got_in != (who in allowed) or fault or not (got_in or status == refused):
                wrong.append((route, who, status))
    assert wrong == []


def test_a_closed_path_is_closed_before_it_is_looked_for(service: Service) -> None:
    for path in ("/nowhere", "/docs", "/redoc", "/api/", "/healthz/", "/static", "/Healthz"):
        assert service.http.get(path, follow_redirects=False).status_code == 401, path


def test_admins_see_and_touch_their_own_tenant_alone(service: Service) -> None:
    http, ours, theirs = service.http, service.as_person("admin"), service.as_person("their-admin")
    assert {u["name"] for u in http.get("/api/users", headers=theirs).json()["users"]} == {
        "their-reader",
        "their-admin",
    }
    for method, path, body in (
        ("PATCH", "/api/users/reader", {"role": "admin"}),
        ("DELETE", "/api/users/reader", None),
        ("GET", "/api/users/reader/keys", None),
        ("POST", "/api/users/reader/keys", {"label": "x"}),
        ("DELETE", "/api/users/reader/keys/1", None),
    ):
        absent = http.request(method, path.replace("reader", "none-such"), json=body, headers=theirs)
        hidden = http.request(method, path, json=body, headers=theirs)
        assert absent.status_code == hidden.status_code == 404, path
    assert http.get("/api/users", headers=ours).json()["users"]
    smuggled = {"name": "mole", "password": PASSWORD, "tenant": "other"}
    assert http.post("/api/users", json=smuggled, headers=ours).status_code == 422


def test_answers_are_read_by_their_asker_and_admins_of_the_tenant(service: Service) -> None:
    question = {"question": "How often does the gateway retry?"}
    asked = service.http.post("/api/chat", json=question, headers=service.as_person("curator")).json()

    def reads(who: str) -> int:
        path = f"/v1/answers/{asked['id']}"
        return service.http.get(path, headers=service.as_person(who)).status_code

    statuses = {who: reads(who) for who in ("curator", "admin", "reader", "their-admin", "their-reader")}
    assert statuses == {
        "curator": 200, "admin": 200, "reader": 404, "their-admin": 404, "their-reader": 404,
    }  # fmt: skip


def test_who_may_read_less_sees_nothing_of_what_others_were_told(service: Service) -> None:
    http, curator = service.http, service.as_person("curator")
    asked = http.post("/api/chat", json=BODIES["POST /api/chat"], headers=curator).json()
    said = {"answer_id": asked["id"], "rating": 1}
    feedback = http.post("/api/feedback", json=said, headers=curator).json()
    scoped, admin = service.as_person("scoped-admin"), service.as_person("admin")
    assert http.get(f"/v1/answers/{asked['id']}", headers=admin).status_code == 200
    assert http.get(f"/v1/answers/{asked['id']}", headers=scoped).status_code == 404
    assert http.get("/api/feedback", headers=scoped).json()["feedback"] == []
    assert [one["id"] for one in http.get("/api/feedback", headers=admin).json()["feedback"]] == [
        feedback["id"]
    ]
    approval = {"created_at": feedback["created_at"]}
    path = f"/api/feedback/{feedback['id']}/approve"
    assert http.post(path, json=approval, headers=scoped).status_code == 404
    assert http.post(path, json=approval, headers=admin).status_code == 200


def test_what_may_be_read_reaches_the_search(service: Service, knowledge: Knowledge) -> None:
    question = {"question": "How often does the gateway retry?"}
    for who in ("reader", "curator"):
        service.http.post("/api/chat", json=question, headers=service.as_person(who))
    assert [filters.access for filters in knowledge.behavior.filters] == [SCOPED, None]


def test_nobody_gives_more_than_they_have(service: Service) -> None:
    http, scoped = service.http, service.as_person("scoped-admin")
    new = {"name": "dora", "password": PASSWORD}
    assert http.post("/api/users", json=new, headers=scoped).status_code == 403
    wider = {**new, "access": ["jira/*"]}
    assert http.post("/api/users", json=wider, headers=scoped).status_code == 403
    same = {**new, "access": ["jira/HAUL"]}
    assert http.post("/api/users", json=same, headers=scoped).status_code == 201
    assert http.patch("/api/users/dora", json={"access": None}, headers=scoped).status_code == 403
    taken_over = {"password": "another long password"}
    assert http.patch("/api/users/admin", json=taken_over, headers=scoped).status_code == 403
    assert http.post("/api/users/admin/keys", json={"label": "x"}, headers=scoped).status_code == 403
    assert http.delete("/api/users/admin", headers=scoped).status_code == 403


def test_keys_of_who_may_read_more_are_out_of_reach_and_keys_make_no_keys(service: Service) -> None:
    http, admin, scoped = service.http, service.as_person("admin"), service.as_person("scoped-admin")
    new = {"label": "x", "role": "admin"}
    made = http.post("/api/users/admin/keys", json=new, headers=admin).json()
    path = f"/api/users/admin/keys/{made['id']}"
    assert http.get("/api/users/admin/keys", headers=scoped).status_code == 403
    assert http.delete(path, headers=scoped).status_code == 403
    assert http.post("/api/users/reader/keys", json=new, headers=bearer(made["key"])).status_code == 403
    assert http.delete(path, headers=admin).status_code == 204


def test_a_change_is_made_whole_or_not_at_all(service: Service) -> None:
    admin = service.as_person("boss")
    change = {"role": "admin", "password": "short"}
    assert service.http.patch("/api/users/reader", json=change, headers=admin).status_code == 422
    users = service.http.get("/api/users", headers=admin).json()["users"]
    assert next(user["role"] for user in users if user["name"] == "reader") == "reader"


def test_nobody_changes_or_deletes_themselves_as_an_admin(service: Service) -> None:
    http, admin = service.http, service.as_person("admin")
    assert http.patch("/api/users/admin", json={"role": "reader"}, headers=admin).status_code == 409
    assert http.delete("/api/users/Admin", headers=admin).status_code == 409


def test_of_two_admins_with_the_same_picture_one_wins(service: Service) -> None:
    http, one, two = service.http, service.as_person("admin"), service.as_person("boss")
    users = http.get("/api/users", headers=one).json()["users"]
    version = next(user["version"] for user in users if user["name"] == "reader")
    change = {"role": "curator", "version": version}
    assert http.patch("/api/users/reader", json=change, headers=one).status_code == 200
    assert http.patch("/api/users/reader", json=change, headers=two).status_code == 409
    assert (
        http.post("/api/users", json={"name": "reader", "password": PASSWORD}, headers=two).status_code == 409
    )


def test_a_key_does_no_more_than_it_was_made_for_until_it_is_revoked(service: Service) -> None:
    http, admin = service.http, service.as_person("boss")

    def make(name: str, **fields: Any) -> dict[str, Any]:
        response = http.post(f"/api/users/{name}/keys", json={"label": "x", **fields}, headers=admin)
        made: dict[str, Any] = response.json()
        return made

    small, large = make("admin"), make("admin", role="admin")
    assert make("reader", role="admin")["role"] == "reader"
    assert http.get("/api/users", headers=bearer(small["key"])).status_code == 403
    assert http.get("/api/users", headers=bearer(large["key"])).status_code == 200
    listed = http.get("/api/users/admin/keys", headers=admin).json()["keys"]
    assert [key["id"] for key in listed] == [small["id"], large["id"]]
    assert "key" not in listed[0]
    for broken in (
        large["key"][:-1],
        f"ak_{small['id']}_{large['key'].split('_', 2)[2]}",
        "ak_",
        "ak_x_",
        "ak__",
    ):
        assert http.get("/api/users", headers=bearer(broken)).status_code == 401
    path = f"/api/users/admin/keys/{large['id']}"
    assert http.delete(path.replace("/admin/", "/reader/"), headers=admin).status_code == 404
    assert http.delete(path, headers=admin).status_code == 204
    assert http.get("/api/users", headers=bearer(large["key"])).status_code == 401


def test_a_key_has_a_rate_and_a_last_day_of_its_own(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    http, admin = service.http, service.as_person("boss")
    wanted = {"label": "x", "per_minute": 2, "expires_in_days": 1}
    key = http.post("/api/users/reader/keys", json=wanted, headers=admin).json()
    statuses = [http.get("/api/auth/me", headers=bearer(key["key"])).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert http.get("/api/auth/me", headers=service.as_person("reader")).status_code == 200
    monkeypatch.setattr("serving.people.credentials.time.time", lambda: key["expires_at"])
    assert http.get("/api/auth/me", headers=bearer(key["key"])).status_code == 401


async def _whoami(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(socket.scope["principal"].name)
    await socket.close()


def test_a_websocket_opens_once_for_a_ticket_and_never_for_a_token_in_its_address(service: Service) -> None:
    service.app.router.routes.append(APIWebSocketRoute("/ws/whoami", _whoami))
    http, reader = service.http, service.as_person("reader")
    token = reader["Authorization"].removeprefix("Bearer ")

    def ticket(headers: dict[str, str]) -> str:
        word: str = http.post("/api/auth/ticket", headers=headers).json()["ticket"]
        return word

    def opened_by(query: str = "", headers: dict[str, str] | None = None) -> str:
        url = f"{service.url.replace('http', 'ws')}/ws/whoami{query}"
        with connect(url, additional_headers=headers, proxy=None) as socket:
            return str(socket.recv(timeout=60))

    word = ticket(reader)
    assert opened_by(f"?ticket={word}") == "reader"
    assert handshake(service, "/ws/whoami" + f"?ticket={word}") == 401
    assert opened_by(headers=reader) == "reader"
    for query in ("", f"?ticket={token}", f"?token={token}", "?ticket=", "?ticket=x", "?ticket=a&ticket=b"):
        assert handshake(service, "/ws/whoami" + query) == 401
    # With a header, the header alone counts: somebody else's ticket is neither used nor used up.
    others = ticket(service.as_person("curator"))
    assert opened_by(f"?ticket={others}", reader) == "reader"
    assert opened_by(f"?ticket={others}") == "curator"
    assert opened_by(f"?ticket={ticket(bearer(OPERATOR))}") == "operator"
    gone = ticket(reader)
    assert http.delete("/api/users/reader", headers=service.as_person("boss")).status_code == 204
    assert handshake(service, "/ws/whoami" + f"?ticket={gone}") == 401


def test_where_a_server_cannot_answer_a_websocket_by_a_status_it_is_closed(service: Service) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody listens to who is not known")

    scope = {
        "type": "websocket", "path": "/ws/whoami", "scheme": "ws", "headers": [], "query_string": b"",
        "client": ("127.0.0.1", 1),
    }  # fmt: skip
    asyncio.run(service.app(scope, receive, send))
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 4401)]


def test_an_oversized_login_form_is_refused_unread(service: Service) -> None:
    response = service.http.post("/api/auth/login", data={"username": "a", "password": "x" * 400_000})
    assert response.status_code == 413


def test_wrong_access_and_names_are_refused_at_the_edge(service: Service) -> None:
    admin = service.as_person("boss")

    def add(**fields: Any) -> httpx.Response:
        body = {"name": "dora", "password": PASSWORD, **fields}
        return service.http.post("/api/users", json=body, headers=admin)

    for name in ("", "a b", "d/ora", "dóra", "х" * 5, "a" * 65, "operator", "anonymous", "a:b", ".", "a\n"):
        assert add(name=name).status_code == 422, name
    for scope in ("jira", "jira/", "/HAUL", "sap/X", "*/*", "jira/\n", "jira/" + "x" * 300):
        assert add(access=[scope]).status_code == 422, scope
    assert add(role="root").status_code == 422
    short = add(password="short")
    assert short.status_code == 422
    assert "short" not in short.text.replace("too short", "")
    assert add(access=["jira/HAUL", "git/*", "confluence/a/b c"]).status_code == 201
