from collections import Counter
from pathlib import Path

from alchemy.records import SftPair, read_lines
from alchemy.settings import KindShares, SynthesisOptions
from alchemy.synthesis.funnel import STAGES, render_funnel
from alchemy.synthesis.generate import Outcome, TemplateProvider
from alchemy.synthesis.grounding import Candidate
from alchemy.synthesis.kinds import KINDS, plan_kinds
from alchemy.synthesis.pairs import write_pairs
from alchemy.synthesis.questions import Questions
from alchemy.synthesis.split import assign_splits
from tests.synthesis.corpus import CHUNKS, DOCUMENTS, INSIGHTS, many

ALL = ("train", "eval", "holdout")


class Scripted:
    """A provider that asks the given questions about every chunk, answered with the chunk's last sentence."""

    name = "scripted"

    def __init__(self, *questions: str, kind: str = "fact") -> None:
        self._questions = questions
        self._kind = kind

    def write(self, tasks):
        for task in tasks:
            quote = task.chunk.text.splitlines()[-1]
            yield Outcome(
                [
                    Candidate(
                        question.format(title=task.document.title),
                        quote,
                        quote,
                        task.chunk.id,
                        task.document.id,
                        self._kind,
                        self.name,
                    )
                    for question in self._questions
                ]
            )


def run(folder: Path, provider, number: int = 100, known=(), **options) -> tuple[dict, list[SftPair]]:
    documents, chunks, insights = many(number)
    metrics = write_pairs(
        folder,
        lambda: documents,
        chunks,
        insights,
        provider,
        SynthesisOptions(**options),
        known_questions=known,
    )
    pairs = [pair for split in ALL for pair in read_lines(SftPair, folder / f"sft_{split}.jsonl")]
    assert metrics["written"] == metrics["kept"] + sum(metrics["rejected"].values())
    assert metrics["kept"] == len(pairs)
    return metrics, pairs


def test_of_alike_questions_the_one_that_measures_stays(tmp_path: Path) -> None:
    metrics, pairs = run(tmp_path, Scripted("Why was the part of the machine replaced?"), pairs_per_chunk=1)
    assert [pair.split for pair in pairs] == ["holdout"]
    splits = metrics["documents_by_split"]
    assert metrics["rejected"] == {
        "near_duplicate_question": splits["holdout"] - 1,
        "near_evaluation_question": splits["train"] + splits["eval"],
    }


def test_no_two_published_questions_are_alike(tmp_path: Path) -> None:
    provider = Scripted("What became of {title}?", "Can you tell me what became of the {title}?")
    metrics, pairs = run(tmp_path, provider, pairs_per_chunk=2)
    assert (metrics["rejected"], len(pairs)) == ({"near_duplicate_question": 100}, 100)
    known = Questions(SynthesisOptions().near_question_jaccard)
    for pair in pairs:
        assert known.origins_of_alike(pair.instruction) == set()
        known.add(pair.instruction, pair.split)


def test_nothing_is_taught_or_tuned_that_people_ask_to_judge_the_answers(tmp_path: Path) -> None:
    splits = assign_splits(many(100)[0], SynthesisOptions())
    titles = {of.id: of.title for of in many(100)[0]}
    one_of = {split: next(name for name, where in splits.items() if where == split) for split in ALL}
    asked = [f"So what became of {titles[name]}, please?" for name in one_of.values()]
    provider = Scripted("What became of {title}, so?")
    metrics, pairs = run(tmp_path, provider, known=asked, pairs_per_chunk=1)
    assert metrics["rejected"] == {"near_evaluation_question": 2}
    documents = {pair.document_id for pair in pairs}
    assert one_of["holdout"] in documents
    assert not documents & {one_of["train"], one_of["eval"]}


def test_a_kind_ends_at_its_share_of_every_split(tmp_path: Path) -> None:
    shares = KindShares(fact=0.9, how=0.1, comparison=0, numeric=0, unanswerable=0)
    provider = Scripted("What became of {title}?", kind="how")
    metrics, pairs = run(tmp_path, provider, 300, max_samples=100, pairs_per_chunk=1, kinds=shares)
    counts = Counter(pair.split for pair in pairs)
    assert counts == {"holdout": 1, "eval": 1, "train": 10}  # of 10, of 5, and of the 98 that are left
    assert metrics["rejected"] == {"kind_over_quota": metrics["written"] - len(pairs)}
    assert metrics["written"] > 100


def test_template_pairs_follow_the_plans_of_their_chunks(tmp_path: Path) -> None:
    metrics, _ = run(tmp_path, TemplateProvider(), 300)
    assert metrics["kept_by_kind"].keys() == {"fact", "numeric", "unanswerable"}
    options = SynthesisOptions()
    plans = [plan_kinds(one.id, options.kinds, options.pairs_per_chunk, KINDS) for one in many(300)[1]]
    assert metrics["kept_by_kind"]["unanswerable"] == sum("unanswerable" in plan for plan in plans) > 50


def test_the_table_goes_from_what_was_written_to_what_was_kept(tmp_path: Path) -> None:
    metrics = write_pairs(
        tmp_path,
        lambda: DOCUMENTS,
        CHUNKS,
        INSIGHTS,
        TemplateProvider(),
        SynthesisOptions(),
        known_questions=["Can you summarize pull request brinewell/haulmark#311?"],
        leaks=lambda text: "16 KiB" in text,
    )
    lines = render_funnel(metrics).splitlines()
    assert lines[0] == "| stage | rejected | left | reasons |"
    assert lines[2] == f"| written | | {metrics['written']} | |"
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[3:-1]]
    assert [row[0] for row in rows] == list(STAGES)
    left = metrics["written"]
    for row in rows:
        left -= int(row[1])
        assert int(row[2].rstrip(" |")) == left
    assert left == metrics["kept"]
    assert f"| **kept** | | {left} |" in lines[-1]
    assert {"judge", "decontamination", "near duplicates", "leak scan"} <= {row[0] for row in rows}
    leaks = next(row for row in rows if row[0] == "leak scan")
    assert leaks[1] == str(metrics["rejected"]["leak"]) != "0"
