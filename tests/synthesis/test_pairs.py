from collections import defaultdict
from pathlib import Path

import orjson
import pytest

from alchemy.catalog import Refiner
from alchemy.errors import Unavailable
from alchemy.records import SftPair, read_lines
from alchemy.settings import SynthesisOptions
from alchemy.synthesis.client import LlmClient, RetryPolicy
from alchemy.synthesis.funnel import STAGES
from alchemy.synthesis.generate import LlmProvider, TemplateProvider
from alchemy.synthesis.grounding import normalize_question
from alchemy.synthesis.pairs import write_pairs
from tests.synthesis.conftest import LlmServer, Reply, answer, grounded, part
from tests.synthesis.corpus import CHUNKS, DOCUMENTS, INSIGHTS, many

FILES = ("sft_train.jsonl", "sft_eval.jsonl", "sft_holdout.jsonl", "train.jsonl")


def read(folder: Path) -> list[SftPair]:
    return [pair for name in FILES[:3] for pair in read_lines(SftPair, folder / name)]


def run(folder: Path, provider=None, number: int = 300, **options) -> tuple[dict, list[SftPair]]:
    folder.mkdir(exist_ok=True)
    documents, chunks, insights = many(number)
    chosen = SynthesisOptions(**options)
    provider = provider or TemplateProvider()
    metrics = write_pairs(folder, lambda: documents, chunks, insights, provider, chosen)
    return metrics, read(folder)


def assert_adds_up(metrics: dict, pairs: list[SftPair]) -> None:
    assert metrics["written"] == metrics["kept"] + sum(metrics["rejected"].values())
    assert metrics["kept"] == len(pairs)
    assert set(metrics["rejected"]) <= {reason for reasons in STAGES.values() for reason in reasons}
    for name in ("split", "source", "kind", "record"):
        assert sum(metrics[f"kept_by_{name}"].values()) == len(pairs)


def test_every_pair_quotes_its_document_and_stands_in_the_file_of_its_split(tmp_path: Path) -> None:
    metrics, pairs = run(tmp_path)
    texts = {of.id: of.text for of in many(300)[0]}
    assert all(pair.evidence_quote in texts[pair.document_id] for pair in pairs)
    for split in ("train", "eval", "holdout"):
        assert {pair.split for pair in read_lines(SftPair, tmp_path / f"sft_{split}.jsonl")} == {split}
    assert len({pair.id for pair in pairs}) == len(pairs)
    assert_adds_up(metrics, pairs)


def test_no_document_and_no_question_is_in_two_splits(tmp_path: Path) -> None:
    _, pairs = run(tmp_path)
    splits = defaultdict(set)
    for pair in pairs:
        splits[pair.document_id].add(pair.split)
    assert all(len(found) == 1 for found in splits.values())
    questions = [normalize_question(pair.instruction) for pair in pairs]
    assert len(questions) == len(set(questions))


def test_texts_for_pre_training_are_those_of_train_documents_only(tmp_path: Path) -> None:
    metrics, pairs = run(tmp_path)
    texts = {orjson.loads(line)["text"] for line in (tmp_path / "train.jsonl").read_bytes().splitlines()}
    assert len(texts) == metrics["texts"] == metrics["documents_by_split"]["train"]
    known = {of.id: of.text for of in many(300)[0]}
    assert all((known[pair.document_id] in texts) == (pair.split == "train") for pair in pairs)


def test_the_template_provider_writes_the_same_bytes_twice_whatever_the_order(tmp_path: Path) -> None:
    documents, chunks, insights = many(200)
    options = SynthesisOptions(max_samples=150)
    results = []
    for name, turn in (("one", 1), ("two", -1)):
        (tmp_path / name).mkdir()
        write_pairs(tmp_path / name, lambda: documents, chunks[::turn], insights, TemplateProvider(), options)
        results.append({file: (tmp_path / name / file).read_bytes() for file in FILES})
    assert results[0] == results[1]


@pytest.mark.parametrize("most", [1, 2, 50, 60])
def test_max_samples_is_kept_to_and_shared_fairly(tmp_path: Path, most: int) -> None:
    metrics, pairs = run(tmp_path, max_samples=most, pairs_per_chunk=1)
    assert len(pairs) == most
    assert_adds_up(metrics, pairs)
    if most >= 50:
        # 300 documents: 240 commits, 30 issues, 24 pages, 6 rows.
        kinds = metrics["kept_by_record"]
        assert kinds["row"] >= 3
        assert max(kinds["commit"], kinds["issue"], kinds["page"]) <= 3 * min(
            kinds["commit"], kinds["issue"], kinds["page"]
        )
        assert metrics["kept_by_split"]["holdout"] == round(most * 0.1)


def test_a_small_corpus_of_all_kinds_fills_every_file(tmp_path: Path) -> None:
    metrics = write_pairs(
        tmp_path, lambda: DOCUMENTS, CHUNKS, INSIGHTS, TemplateProvider(), SynthesisOptions()
    )
    assert set(metrics["kept_by_split"]) == {"train", "eval", "holdout"}
    assert_adds_up(metrics, read(tmp_path))


def test_leaks_and_an_empty_corpus(tmp_path: Path) -> None:
    options = SynthesisOptions()
    metrics = write_pairs(
        tmp_path,
        lambda: DOCUMENTS,
        CHUNKS,
        INSIGHTS,
        TemplateProvider(),
        options,
        leaks=lambda text: "16 KiB" in text,
    )
    assert metrics["rejected"]["leak"] >= 1
    assert not any("16 KiB" in pair.response for pair in read(tmp_path))
    metrics = write_pairs(tmp_path, list, [], [], TemplateProvider(), options)
    assert (metrics["written"], metrics["kept"], read(tmp_path)) == (0, 0, [])


@pytest.fixture
def client(model: Refiner, tmp_path: Path):
    with LlmClient(model, tmp_path / "llm.sqlite", retry=RetryPolicy(attempts=2, base_s=0.01)) as client:
        yield client


def test_a_model_writes_pairs_in_parallel_and_only_grounded_ones_are_kept(
    llm: LlmServer, client: LlmClient, tmp_path: Path
) -> None:
    llm.reply, llm.delay_s = grounded, 0.05
    metrics, pairs = run(tmp_path / "out", LlmProvider(client, 8), max_samples=40, pairs_per_chunk=2)
    assert len(pairs) == 40
    assert set(metrics["rejected"]) <= {"ungrounded_number", "over_quota"}
    assert metrics["rejected"]["ungrounded_number"] > 30
    assert not any("987654321" in pair.response for pair in pairs)
    assert_adds_up(metrics, pairs)
    assert 2 <= llm.most_at_once <= 8
    assert {pair.provider for pair in pairs} == {"deepseek/deepseek-chat"}


def test_a_prompt_holds_the_passage_the_insight_and_asks_for_json(
    llm: LlmServer, client: LlmClient, tmp_path: Path
) -> None:
    llm.reply = grounded
    run(tmp_path / "out", LlmProvider(client, 4), max_samples=30)
    contents = [request["messages"][1]["content"] for request in llm.requests]
    assert all("Record" in content and "JSON" in content for content in contents)
    assert any("more visits than 90 %" in content for content in contents)
    assert {request["response_format"]["type"] for request in llm.requests} == {"json_object"}


def test_a_run_after_a_run_makes_no_call_and_writes_the_same_bytes(
    llm: LlmServer, client: LlmClient, tmp_path: Path
) -> None:
    llm.reply = grounded
    run(tmp_path / "one", LlmProvider(client, 8), max_samples=30, pairs_per_chunk=2)
    calls = llm.calls
    run(tmp_path / "two", LlmProvider(client, 3), max_samples=30, pairs_per_chunk=2)
    assert llm.calls == calls
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_run_that_failed_halfway_resumes_where_it_stopped(
    llm: LlmServer, client: LlmClient, model: Refiner, tmp_path: Path
) -> None:
    good = 0

    def failing(request: dict) -> Reply:
        nonlocal good
        good += 1
        return grounded(request) if good <= 10 else (500, {}, {"error": {"message": "down"}})

    llm.reply = failing
    with pytest.raises(Unavailable):
        run(tmp_path / "one", LlmProvider(client, 1), max_samples=30, pairs_per_chunk=2)
    assert client.usage.calls == 10
    llm.reply = grounded
    with LlmClient(model, tmp_path / "llm.sqlite") as again:
        _, pairs = run(tmp_path / "two", LlmProvider(again, 1), max_samples=30, pairs_per_chunk=2)
        assert again.usage.cached == 10
    assert len(pairs) == 30


@pytest.mark.parametrize(
    ("content", "finish", "reason"),
    [
        ('{"pairs": [{"instruction": "What', "length", "truncated_json"),
        ('{"pairs": [{"instruction": "What', "stop", "truncated_json"),
        ("Sure! {here you go}", "stop", "not_json"),
        ('{"answer": 1}', "stop", "wrong_shape"),
        ('{"pairs": [1, {"instruction": "What is it?"}]}', "stop", "wrong_shape"),
        ('{"pairs": [{"instruction": 1, "response": 2, "evidence_quote": 3}]}', "stop", "wrong_shape"),
        ('{"pairs": [{"instruction": "a", "response": "b", "evidence_quote": "c"}]}', "stop", "wrong_shape"),
        (
            '{"pairs": [{"kind": "riddle", "instruction": "a", "response": "b", "evidence_quote": "c"}]}',
            "stop",
            "unknown_kind",
        ),
        ("null", "stop", "wrong_shape"),
        ("", "stop", "truncated_json"),
    ],
)
def test_what_is_no_pair_is_counted_with_its_reason(
    llm: LlmServer, client: LlmClient, tmp_path: Path, content: str, finish: str, reason: str
) -> None:
    llm.reply = lambda request: (200, {}, answer(content, finish))
    metrics, pairs = run(tmp_path / "out", LlmProvider(client, 8), number=20)
    assert set(metrics["rejected"]) == {reason}
    assert metrics["written"] > 0
    assert_adds_up(metrics, pairs)


def test_a_fenced_answer_is_read_and_surplus_pairs_are_rejected(
    llm: LlmServer, client: LlmClient, tmp_path: Path
) -> None:
    def fenced(request: dict) -> Reply:
        title, _, body = part(request, "passage").partition("\n\n")
        rows = [
            {
                "kind": "fact",
                "instruction": f"What about {title} ({n})?",
                "response": body,
                "evidence_quote": body,
            }
            for n in "ab"
        ]
        return 200, {}, answer(f"```json\n{orjson.dumps({'pairs': rows}).decode()}\n```")

    llm.reply = fenced
    metrics, pairs = run(tmp_path / "out", LlmProvider(client, 8), number=20, pairs_per_chunk=1)
    assert metrics["rejected"] == {"too_many": 20}
    assert len(pairs) == 20


def test_a_refused_passage_is_left_out_and_the_rest_goes_on(
    llm: LlmServer, client: LlmClient, tmp_path: Path
) -> None:
    llm.script.append((400, {}, {"error": {"message": "content policy"}}))
    llm.reply = grounded
    metrics, pairs = run(tmp_path / "out", LlmProvider(client, 1), number=20)
    assert metrics["rejected"]["refused_by_provider"] == 1
    assert len(pairs) == 19


def test_a_passage_without_an_answer_is_left_out_but_no_answer_at_all_is_an_error(
    llm: LlmServer, client: LlmClient, tmp_path: Path
) -> None:
    down: Reply = (500, {}, {"error": {"message": "down"}})
    llm.script.extend([down, down])
    llm.reply = grounded
    metrics, pairs = run(tmp_path / "one", LlmProvider(client, 1), number=10)
    assert metrics["rejected"]["no_answer"] == 1
    assert client.usage.failures == 2
    assert len(pairs) == 9
    llm.reply = lambda request: down
    with pytest.raises(Unavailable, match="none of 3"):
        run(tmp_path / "two", LlmProvider(client, 1), number=3, pairs_per_chunk=1)


def test_a_spent_budget_ends_the_run_with_what_there_is(
    llm: LlmServer, model: Refiner, tmp_path: Path
) -> None:
    llm.reply = grounded
    with LlmClient(model, tmp_path / "llm.sqlite", budget_usd=0.002) as client:
        metrics, pairs = run(tmp_path / "out", LlmProvider(client, 2))
        assert 0 < client.usage.cost_usd <= 0.002
        assert client.usage.budget_spent
    assert 0 < len(pairs) < 60
    assert_adds_up(metrics, pairs)
