"""Questions of one conversation: completed from what was said, kept for who said it."""

from tests.serving.conftest import Knowledge, Serve, Valkey


def test_a_session_remembers_and_a_follow_up_is_understood(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    searched: list[str] = []
    knowledge.behavior.search = searched.append
    with serve(redis_url=valkey.url) as service:
        session = service.http.post("/api/sessions", json={}).json()["id"]
        first = service.ask("Who fixed HAUL-12?", session=session)
        second = service.ask("And when was that?", session=session)
        alone = service.ask("And when was that?")
        kept = service.http.get(f"/api/sessions/{session}").json()
    assert searched == ["Who fixed HAUL-12?", "And when was that (HAUL-12)?", "And when was that?"]
    assert (first["session"], first["standalone"]) == (session, None)
    assert second["standalone"] == "And when was that (HAUL-12)?"
    assert alone["standalone"] is alone["session"] is None
    assert [(one["role"], one["content"]) for one in kept["messages"]] == [
        ("user", "Who fixed HAUL-12?"),
        ("assistant", first["answer"]),
        ("user", "And when was that?"),
        ("assistant", second["answer"]),
    ]
    assert kept["title"] == "Who fixed HAUL-12?"


def test_a_session_that_is_not_there_is_not_found(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        response = service.http.post("/api/chat", json={"question": "Who?", "session": "0" * 24})
    assert response.status_code == 404


def test_without_the_state_server_a_session_is_answered_and_not_kept(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        session = service.http.post("/api/sessions", json={}).json()["id"]
        valkey.kill()
        answer = service.ask("Who fixed HAUL-12?", session=session)
        assert answer["answerable"] and answer["degraded"] == ["history"]
        valkey.start()


def test_a_session_deleted_while_its_answer_is_made_stays_deleted(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        session = service.http.post("/api/sessions", json={}).json()["id"]
        knowledge.behavior.search = lambda _: service.http.delete(f"/api/sessions/{session}")
        answer = service.ask("Who fixed HAUL-12?", session=session)
        assert answer["degraded"] == []
        assert service.http.get(f"/api/sessions/{session}").status_code == 404
        assert service.http.get(f"/v1/answers/{answer['id']}").status_code == 200
