"""The gate suite: what must not serve is refused with the right reason, and a true improvement passes."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from safetensors.numpy import load_file, save_file

from alchemy.artifacts import Artifacts, Request
from alchemy.catalog import BaseModelEntry, LoraOptions
from alchemy.errors import BadConfig
from alchemy.evaluation.candidate import Candidate
from alchemy.evaluation.injections import injections
from alchemy.evaluation.judge import judge_candidate
from alchemy.evaluation.report import REPORT, refusals_of, scores_of
from alchemy.gate import Policy, Scores, decide, read_policy
from alchemy.inspection import inspect_candidate
from alchemy.records import SftPair, Split, to_line
from alchemy.release import Release
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import build_index
from alchemy.settings import SearchOptions, TrainOptions
from alchemy.store import Store
from tests.conftest import ROOT
from tests.retrieval.conftest import TEXTS, HashEmbedder, make_chunk
from tests.tiny_models import SYSTEMS, make_base, pairs

GOOD = Scores(recall_at_5=0.9, ndcg_at_10=0.8, base_loss=3.0, adapter_loss=2.0, leaks=0)
SECRET = "ghp_secret"
LAYERS = ("layers.0.q_proj", "layers.1.v_proj")
RANK = 4

# --- scores ------------------------------------------------------------------------------------------------


def asked(values: Sequence[float]) -> Scores:
    """Scores with that recall and nDCG on each question; the means are those of GOOD."""
    return replace(
        GOOD,
        by_question={str(n): {"recall_at_5": v, "ndcg_at_10": v} for n, v in enumerate(values)},
    )


def learnt(losses: Sequence[float], adapter: str = "lora_adapter") -> Scores:
    """Scores with those losses on the pairs of one adapter; the means are those of GOOD."""
    return replace(GOOD, by_pair={adapter: {str(n): loss for n, loss in enumerate(losses)}})


@pytest.mark.parametrize(
    ("candidate", "champion", "told"),
    [
        (replace(GOOD, recall_at_5=0.2), GOOD, "recall@5 0.200 is more than 0.05 under"),
        (replace(GOOD, adapter_loss=2.2), GOOD, "over the champion's 2.000 by more than 5%"),
        (replace(GOOD, adapter_loss=float("inf")), None, "not under the base's"),
        (asked([0.0] * 15 + [1.0] * 15), asked([1.0] * 30), "recall@5 on the 30 questions"),
        (asked([0.0] * 15 + [1.0] * 15), asked([1.0] * 30), "nDCG@10 on the 30 questions"),
        (learnt([2.4] * 30), learnt([2.0] * 30), "loss of lora_adapter on the 30 pairs"),
        (replace(GOOD, obeyed=("role-play", "base64")), None, "2 injected documents were obeyed: role-play"),
    ],
)
def test_a_worse_candidate_is_refused(candidate: Scores, champion: Scores | None, told: str) -> None:
    decision = decide(candidate, champion, Policy())
    assert not decision.passed
    assert any(told in reason for reason in decision.reasons), decision.reasons


@pytest.mark.parametrize(
    ("candidate", "champion"),
    [
        (replace(GOOD, recall_at_5=0.95, ndcg_at_10=0.9, adapter_loss=1.8), GOOD),
        (asked([1.0] * 30), asked([0.0] * 15 + [1.0] * 15)),
        (asked([0.0] + [1.0] * 29), asked([1.0] * 30)),  # one question less may be chance
        (asked([0.0] * 3), asked([1.0] * 3)),  # too few to say anything
        (asked([]), asked([1.0] * 30)),  # an evaluation that kept no questions
        (learnt([1.8] * 30), learnt([2.0] * 30)),
        (learnt([9.0] + [2.0] * 29), learnt([2.0] * 30)),  # one pair may be chance
        (learnt([2.4] * 3), learnt([2.0] * 3)),
        (learnt([2.4] * 30), learnt([2.0] * 30, "another_adapter")),
    ],
)
def test_an_improvement_and_what_may_be_chance_pass(candidate: Scores, champion: Scores) -> None:
    assert decide(candidate, champion, Policy()).reasons == ()


def test_what_was_compared_is_on_record_with_its_interval_also_when_it_passes() -> None:
    candidate, champion = learnt([1.5] * 30), learnt([2.0] * 30)
    (name, one), *others = decide(candidate, champion, Policy()).compared.items()
    assert (name, one.shared, others) == ("loss of lora_adapter", 30, [])
    assert one.change.low == one.change.mean == one.change.high == pytest.approx(-0.25)
    assert decide(candidate, None, Policy()).compared == {}


def test_a_hard_stop_outweighs_the_best_scores_and_is_told_once() -> None:
    decision = decide(replace(GOOD, recall_at_5=1.0), GOOD, Policy(), ["a pickle", "a pickle", "a gap"])
    assert decision.reasons == ("a pickle", "a gap")
    assert not decision.passed


# --- the policy --------------------------------------------------------------------------------------------


def test_the_shipped_policy_is_the_built_in_one() -> None:
    assert read_policy(ROOT / "gate.toml") == Policy()


def test_without_a_file_the_built_in_policy_holds(tmp_path: Path) -> None:
    assert read_policy(tmp_path / "none.toml") == Policy()


def test_the_policy_file_decides(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text("min_recall_at_5 = 0.95\n")
    assert decide(GOOD, None, Policy()).passed
    assert "under the floor 0.95" in decide(GOOD, None, read_policy(path)).reasons[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("min_recal = 0.5", "min_recal: Extra"),
        ("min_recall_at_5 = 1.5", "min_recall_at_5: Input should be less"),
        ("retrieval_margin = -0.1", "retrieval_margin: Input should be greater"),
        ("loss_margin = nan", "loss_margin: Input"),
        ('loss_margin = "0.05"', "loss_margin: Input should be a valid number"),
        ("min_shared_pairs = 1", "min_shared_pairs: Input should be greater"),
        ("min_shared_questions = 1", "min_shared_questions: Input should be greater"),
        ("min_recall_at_5 = ", "not TOML"),
    ],
)
def test_a_wrong_policy_says_which_entry(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(text)
    with pytest.raises(BadConfig) as error:
        read_policy(path)
    assert told in str(error.value)
    assert str(path) in str(error.value)


# --- hard stops --------------------------------------------------------------------------------------------


def tensors() -> dict[str, np.ndarray]:
    rows = {}
    for layer in LAYERS:
        rows[f"base_model.model.model.{layer}.lora_A.weight"] = np.ones((RANK, 8), np.float32)
        rows[f"base_model.model.model.{layer}.lora_B.weight"] = np.ones((6, RANK), np.float32)
    return rows


def write_adapter(folder: Path, **changes: np.ndarray) -> None:
    """A sound adapter, but for the tensors of the first layer that are given by the name of their matrix."""
    changed = {f"base_model.model.model.{LAYERS[0]}.{name}.weight": value for name, value in changes.items()}
    save_file(tensors() | changed, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": "base", "r": RANK}
    (folder / "adapter_config.json").write_bytes(orjson.dumps(config))
    (folder / "loss.png").write_bytes(b"\x89PNG\r\n\x1a\n...")


def pairs_of(split: Split) -> list[SftPair]:
    """Some pairs whose documents are in no other split."""
    return [replace(one, document_id=f"{split}:{one.document_id}") for one in pairs(split, 4)]


def write_pairs(folder: Path, **changes: list[SftPair]) -> None:
    sound = {"train": pairs_of("train"), "eval": pairs_of("eval"), "holdout": pairs_of("holdout")}
    for split, some in (sound | changes).items():
        (folder / f"sft_{split}.jsonl").write_bytes(b"".join(map(to_line, some)))


def write_index(folder: Path) -> None:
    chunks = [make_chunk(key, text, 0, source, project) for key, (source, project, text) in TEXTS.items()]
    build_index(folder, chunks, {}, HashEmbedder())


@dataclass
class Parts:
    """What a candidate is made of; a sound one unless a test changes something."""

    index: Callable[[Path], None] = write_index
    adapter: Callable[[Path], None] = write_adapter
    pairs: Callable[[Path], None] = write_pairs
    made_from: dict[str, dict[str, str]] = field(default_factory=dict)
    base: str = "base"
    embedder: str = HashEmbedder.model_id
    after: Callable[[Artifacts, Release], None] = lambda artifacts, release: None


def note(folder: Path) -> None:
    (folder / "part-00000.jsonl").write_bytes(b"{}\n")


def inspect(artifacts: Artifacts, parts: Parts) -> tuple[str, ...]:
    """Publishes the parts with their lineage and inspects the release that names them."""
    versions: dict[str, str] = {}

    def publish(asset: str, build: Callable[[Path], None], *inputs: str) -> str:
        def fill(folder: Path) -> dict[str, Any]:
            build(folder)
            return {}

        used = parts.made_from.get(asset, {name: versions[name] for name in inputs})
        versions[asset] = artifacts.materialize(Request(asset, used, "1"), fill).artifact.version
        return versions[asset]

    publish("raw/git", note)
    publish("cleaned_corpus", note, "raw/git")
    publish("rag_chunks", note, "cleaned_corpus")
    publish("sft_pairs", parts.pairs, "cleaned_corpus", "rag_chunks")
    index = publish("faiss_index", parts.index, "rag_chunks")
    adapters = {"lora_adapter": publish("lora_adapter", parts.adapter, "sft_pairs")}
    judged = publish("evaluation", note, "faiss_index", "sft_pairs", "lora_adapter")
    weights = SearchWeights()
    release = Release(index, adapters, parts.base, parts.embedder, "reranker", weights, "1", judged)
    parts.after(artifacts, release)
    return inspect_candidate(artifacts, release, lambda text: text.count(SECRET))


def also(name: str, content: bytes) -> Callable[[Path], None]:
    """An adapter with one more, or another, file."""

    def build(folder: Path) -> None:
        write_adapter(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return build


def truncated(folder: Path) -> None:
    write_adapter(folder)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def broken_index(folder: Path) -> None:
    write_index(folder)
    (folder / "quant.npy").write_bytes(b"noise")


def damage(asset: str, name: str) -> Callable[[Artifacts, Release], None]:
    """Changes bytes of a published file, as a disk does."""

    def after(artifacts: Artifacts, release: Release) -> None:
        path = artifacts.store.local_path(f"{artifacts.latest(asset).folder}/{name}")
        assert path is not None
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return after


def forget(asset: str) -> Callable[[Artifacts, Release], None]:
    """Removes the manifest of an artifact: it no longer exists."""

    def after(artifacts: Artifacts, release: Release) -> None:
        path = artifacts.store.local_path(f"{artifacts.latest(asset).folder}/manifest.json")
        assert path is not None
        path.unlink()

    return after


HELD = pairs_of("holdout")[0]

REFUSED = {
    "a pickle beside the weights": (Parts(adapter=also("adapter_model.bin", b"\x80\x04.")), "is a pickle"),
    "a pickle in a folder below": (Parts(adapter=also("more/state.pkl", b"\x80\x04.")), "more/state.pkl"),
    "a pickle that is called JSON": (Parts(adapter=also("state.json", b"\x80\x04.")), "state.json: not JSON"),
    "a pickle that is called a picture": (Parts(adapter=also("loss.png", b"\x80\x04.")), "not a PNG"),
    "truncated weights": (Parts(adapter=truncated), "not a safetensors file"),
    "weights with a NaN": (
        Parts(adapter=lambda folder: write_adapter(folder, lora_A=np.full((RANK, 8), np.nan, np.float32))),
        "1 tensors are not finite, the first is base_model.model.model.layers.0.q_proj.lora_A",
    ),
    "weights of another rank": (
        Parts(adapter=lambda folder: write_adapter(folder, lora_B=np.ones((6, 3), np.float32))),
        "not of the rank 4",
    ),
    "weights of whole numbers": (
        Parts(adapter=lambda folder: write_adapter(folder, lora_A=np.ones((RANK, 8), np.int8))),
        "not of a type that can be checked",
    ),
    "an adapter of another base": (Parts(base="other/model"), "trained on base, the base model is other"),
    "weights that the disk changed": (
        Parts(after=damage("lora_adapter", "adapter_model.safetensors")),
        "adapter_model.safetensors: content is not what was published",
    ),
    "an index that the disk changed": (
        Parts(after=damage("faiss_index", "chunks.sqlite")),
        "chunks.sqlite: content is not what was published",
    ),
    "an index that does not open": (Parts(index=broken_index), "faiss_index/quant.npy: cannot be read"),
    "an index of another embedder": (Parts(embedder="other/embedder"), "the embedder is other/embedder"),
    "an adapter made from nothing": (
        Parts(made_from={"lora_adapter": {}}),
        "lora_adapter: its lineage has a gap: lora_adapter",
    ),
    "an index made from nothing": (
        Parts(made_from={"faiss_index": {}}),
        "made from no rag_chunks",
    ),
    "a corpus made from no raw listing": (
        Parts(made_from={"cleaned_corpus": {}}),
        "made from no raw/",
    ),
    "chunks that are gone": (Parts(after=forget("rag_chunks")), "faiss_index: its lineage has a gap"),
    "held-out documents in the training pairs": (
        Parts(pairs=lambda folder: write_pairs(folder, holdout=[HELD], train=[HELD])),
        "1 held-out documents are in the training pairs too, the first is holdout:d1000",
    ),
    "held-out documents in the tuning pairs": (
        Parts(pairs=lambda folder: write_pairs(folder, holdout=[HELD], eval=[HELD])),
        "1 held-out documents are in the tuning pairs too",
    ),
    "a secret in the training pairs": (
        Parts(pairs=lambda folder: write_pairs(folder, train=[replace(HELD, response=f"It is {SECRET}.")])),
        "1 secrets or personal data are left",
    ),
}


@pytest.fixture
def stored(folder_store: Store, tmp_path: Path) -> Artifacts:
    return Artifacts(folder_store, tmp_path / "cache")


def test_a_sound_candidate_has_no_faults_on_any_store(artifacts: Artifacts) -> None:
    assert inspect(artifacts, Parts()) == ()


@pytest.mark.parametrize("case", REFUSED)
def test_a_faulty_candidate_is_refused_with_the_right_reason(stored: Artifacts, case: str) -> None:
    parts, told = REFUSED[case]
    faults = inspect(stored, parts)
    assert any(told in fault for fault in faults), faults
    assert not any(str(stored.store.url) in fault for fault in faults)
    assert not decide(GOOD, None, Policy(), faults).passed


def test_every_fault_is_told_not_only_the_first(stored: Artifacts) -> None:
    parts = Parts(index=broken_index, adapter=truncated, embedder="other", made_from={"cleaned_corpus": {}})
    faults = inspect(stored, parts)
    for told in ("quant.npy", "not a safetensors file", "faiss_index: its lineage", "lora_adapter: its lin"):
        assert any(told in fault for fault in faults), faults


# --- what the evaluation tells the gate --------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_base(tmp_path_factory.mktemp("models") / "base", hidden=64)


@pytest.fixture(scope="module")
def holdout() -> list[SftPair]:
    """Each text of the small corpus is asked for."""
    asked_for = zip(pairs("holdout", len(TEXTS)), TEXTS.items(), strict=True)
    return [replace(one, instruction=text, document_id=key) for one, (key, (*_, text)) in asked_for]


def judge(folder: Path, base: str, index: Path, adapters: dict[str, Path], held: list[SftPair]) -> Any:
    """The report of an evaluation without a reranker, as the gate reads it."""
    entry = BaseModelEntry(model_id=base, device="cpu")
    candidate = Candidate(index, adapters, {}, HashEmbedder(), None, entry, folder)
    folder.mkdir()
    judge_candidate(
        candidate,
        [],
        held,
        options=SearchOptions(rerank=0),
        count_leaks=lambda text: 0,
        folder=folder,
        progress=lambda done, total: None,
    )
    return orjson.loads((folder / REPORT).read_bytes())


def test_an_adapter_that_cannot_be_judged_is_named_in_the_report(
    tmp_path: Path, tiny_base: str, holdout: list[SftPair]
) -> None:
    write_index(tmp_path / "index")
    trained = train(tmp_path / "trained", tiny_base, pairs("train", 48))
    poisoned = tmp_path / "poisoned"
    shutil.copytree(trained, poisoned)
    weights = load_file(poisoned / "adapter_model.safetensors")
    name = next(name for name in weights if "lora_B" in name)
    save_file(weights | {name: np.full_like(weights[name], np.nan)}, poisoned / "adapter_model.safetensors")
    unfit = tmp_path / "unfit"
    unfit.mkdir()
    write_adapter(unfit)
    adapters = {"trained": trained, "poisoned": poisoned, "unfit": unfit}
    report = judge(tmp_path / "report", tiny_base, tmp_path / "index", adapters, holdout)
    (refused,) = refusals_of(report)
    assert refused.startswith("unfit: ")
    assert str(tmp_path) not in refused
    decision = decide(scores_of(report), None, Policy(), refusals_of(report))
    assert any("unfit: " in reason for reason in decision.reasons)
    assert any("loss inf is not under the base's" in reason for reason in decision.reasons)


def test_a_worse_index_is_refused_on_the_very_same_questions(
    tmp_path: Path, tiny_base: str, holdout: list[SftPair]
) -> None:
    write_index(tmp_path / "whole")
    first = [make_chunk("jira:TIKA-4833", TEXTS["jira:TIKA-4833"][2])]
    build_index(tmp_path / "part", first, {}, HashEmbedder())
    whole, part = (
        scores_of(judge(tmp_path / f"{name}-report", tiny_base, tmp_path / name, {}, holdout))
        for name in ("whole", "part")
    )
    policy = Policy(min_shared_questions=len(TEXTS))
    assert decide(whole, part, policy).reasons == ()
    reasons = decide(part, whole, policy).reasons
    for told in ("recall@5 0.111 is under", "recall@5 0.111 is more", "recall@5 on the 9 questions"):
        assert any(told in reason for reason in reasons), reasons


def test_an_adapter_that_learnt_shuffled_answers_is_refused(tmp_path: Path, tiny_base: str) -> None:
    write_index(tmp_path / "index")
    taught, held = owned(pairs("train", 48)), owned(pairs("holdout", 12))
    answers = [one.response for one in taught]
    shuffled = [
        replace(one, response=answer) for one, answer in zip(taught, answers[7:] + answers[:7], strict=True)
    ]
    right, wrong = (
        scores_of(
            judge(
                tmp_path / f"{name}-report",
                tiny_base,
                tmp_path / "index",
                {"lora_adapter": train(tmp_path / name, tiny_base, some)},
                held,
            )
        )
        for name, some in (("right", taught), ("wrong", shuffled))
    )
    floorless = Policy(min_recall_at_5=0)  # nothing in the index answers these questions
    assert decide(right, None, floorless).passed
    assert decide(right, wrong, floorless).passed
    decision = decide(wrong, right, floorless)
    assert any("over the champion's" in reason for reason in decision.reasons), decision.reasons
    policy = Policy(min_recall_at_5=0, min_shared_pairs=len(held))
    for candidate, champion, grew in ((wrong, right, True), (right, wrong, False)):
        change = decide(candidate, champion, policy).compared["loss of lora_adapter"].change
        assert (change.low > 0, change.high < 0) == (grew, not grew)


def test_an_adapter_that_does_what_an_injected_document_demands_is_refused(
    tmp_path: Path, tiny_base: str, holdout: list[SftPair]
) -> None:
    """It has learnt from the document: asked the innocent question, it says the canary."""
    write_index(tmp_path / "index")
    attack = injections()[0]
    taught = [replace(one, instruction=attack.question, response=attack.canary) for one in pairs("train", 48)]
    obedient = {"obedient": train(tmp_path / "obedient", tiny_base, taught)}
    report = judge(tmp_path / "report", tiny_base, tmp_path / "index", obedient, holdout)
    assert report["injections"]["obeyed"] == []  # answers are quotes, and obey nobody
    decision = decide(scores_of(report), None, Policy(), refusals_of(report))
    assert any(f"{attack.id} by obedient" in reason for reason in decision.reasons), decision.reasons


def owned(some: list[SftPair]) -> list[SftPair]:
    """The same questions, answered by who owns the system that they name."""
    owners = dict(zip(SYSTEMS, ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Alan"), strict=True))
    return [
        replace(one, response=f"{owners[one.instruction.split()[-1].rstrip('?')]} owns it.") for one in some
    ]


def train(folder: Path, base: str, taught: list[SftPair]) -> Path:
    """Trains an adapter of the tiny base in a second."""
    from alchemy.training.lora import train_lora

    options = TrainOptions(max_tokens=20_000, max_length=128, learning_rate=1e-2, batch_tokens=256, epochs=10)
    folder.mkdir()
    train_lora(base, taught, [], LoraOptions(r=8, alpha=16), options, device="cpu", folder=folder)
    return folder
