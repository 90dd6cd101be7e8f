from tests.serving.conftest import Knowledge, Serve, Valkey


def test_an_answer_leads_back_to_its_raw_object_and_to_what_made_its_release(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    champion = knowledge.champion("ALPHA")
    knowledge.artifacts.store.put("raw/jira/jira:ALPHA-1.json", b"{}")
    with serve(redis_url=valkey.url) as service:
        answer = service.ask()
        row = service.http.get(f"/v1/answers/{answer['id']}/lineage").raise_for_status().json()
    (citation,) = row["citations"]
    (cited,) = answer["citations"]
    assert citation["quote"] == cited["quote"]
    assert citation["chunk"] == {"id": cited["chunk_id"], "start": cited["start"], "end": cited["end"]}
    assert citation["document"]["id"] == "jira:ALPHA-1"
    assert citation["raw"]["key"] == "raw/jira/jira:ALPHA-1.json"
    assert citation["raw"]["sha256"] == "ab" * 32
    assert citation["raw"]["present"] is True
    assert row["release"]["id"] == champion
    index, adapter = row["release"]["artifacts"]
    assert (index["asset"], index["inputs"][0]["asset"]) == ("faiss_index", "rag_chunks")
    assert (adapter["asset"], adapter["inputs"][0]["asset"]) == ("lora_adapter", "sft_pairs")


def test_what_was_pruned_is_said_to_be_missing(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> None:
    champion = knowledge.champion("ALPHA")
    with serve(redis_url=valkey.url) as service:
        answer = service.ask()
        store = knowledge.artifacts.store
        for meta in store.objects("index") + store.objects(f"releases/{champion}"):
            store.delete(meta.key)
        row = service.http.get(f"/v1/answers/{answer['id']}/lineage").raise_for_status().json()
    assert row["citations"][0]["raw"]["present"] is False
    assert "missing" in row["release"]


def test_an_answer_that_never_was_has_no_lineage(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> None:
    with serve(redis_url=valkey.url, ready=False) as service:
        response = service.http.get("/v1/answers/ans-0/lineage")
        assert response.status_code == 404
        assert "ans-0" in response.json()["error"]["message"]


def test_a_refusal_before_the_first_release_has_an_empty_lineage(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    with serve(redis_url=valkey.url, ready=False) as service:
        answer = service.ask()
        row = service.http.get(f"/v1/answers/{answer['id']}/lineage").raise_for_status().json()
    assert (row["release"], row["citations"]) == (None, [])
