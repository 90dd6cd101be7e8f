"""What a judge is worth: its verdicts on answers that are known to be right, and on wrong ones made of them.

The right ones are template pairs, which quote their source word for word. Each is spoiled in one way, always
the same for the same pairs: a number is changed, a name is swapped for one that the source does not hold, or
the answer of another document stands in its place.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alchemy.synthesis.answers import until_spent
from alchemy.synthesis.generate import Task
from alchemy.synthesis.grounding import check
from alchemy.synthesis.judge import Case, Judge
from alchemy.synthesis.templates import template_pairs

OF_EACH = 10  # wrong answers of each way, and at most as many right ones: 60 short calls in all

_NUMBER = re.compile(r"(?<![\w.,:/-])\d+(?:[.,]\d+)*(?![\w/:-])")
# A name is swapped for one of the same form: HAUL-97, snake_case, CamelCase, a capital inside a sentence.
_NAMES = (
    re.compile(r"\b[A-Z]{2,}-\d+\b"),
    re.compile(r"\b[a-z]+(?:_[a-z]+)+\b"),
    re.compile(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b"),
    re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b"),
)


@dataclass(frozen=True, slots=True)
class Plant:
    """A right pair and what became of it."""

    way: str
    right: Case
    wrong: Case


def plant_errors(tasks: Sequence[Task]) -> list[Plant]:
    """At most `OF_EACH` plants of each way, of as many documents as there are."""
    rights = [case for task in tasks for case in _right(task)]
    plants: list[Plant] = []
    for way, spoil in _WAYS.items():
        documents: set[str] = set()
        for at, case in enumerate(rights):
            if case.pair.document_id in documents or len(documents) == OF_EACH:
                continue
            answer = spoil(case, [*rights[at + 1 :], *rights[:at]])
            if answer is not None:
                documents.add(case.pair.document_id)
                plants.append(Plant(way, case, replace(case, pair=replace(case.pair, response=answer))))
    return plants


def measure_judge(judge: Judge, tasks: Sequence[Task]) -> dict[str, Any]:
    """How many planted wrong answers the judge catches, by way, and how many right ones it refuses.

    A case without a verdict is neither caught nor refused and counts as wrongly judged. Where the budget
    ends, the numbers are of what was judged until then.
    """
    plants = plant_errors(tasks)
    rights = list(
        {(one.right.pair.chunk_id, one.right.pair.instruction): one.right for one in plants}.values()
    )
    cases = [one.wrong for one in plants] + rights
    reasons = until_spent(judge.reasons(cases))
    refused = [reason is not None and reason.startswith("judged_") for reason in reasons]
    on_plants, on_rights = refused[: len(plants)], refused[len(plants) :]
    by_way = {
        way: [caught for one, caught in zip(plants, on_plants, strict=False) if one.way == way]
        for way in _WAYS
    }
    return {
        "planted": len(on_plants),
        "caught": sum(on_plants),
        "catch_rate": _share(on_plants),
        "caught_by_way": {way: f"{sum(caught)} of {len(caught)}" for way, caught in by_way.items()},
        "right": len(on_rights),
        "false_alarms": sum(on_rights),
        "false_alarm_rate": _share(on_rights),
        "not_judged": reasons.count("not_judged"),
    }


def _right(task: Task) -> Iterator[Case]:
    for pair in template_pairs(task.document, task.chunk, task.insight):
        answers = pair.kind in ("fact", "how", "numeric")
        if answers and check(pair, task.chunk, task.insight, task.document.fields) is None:
            yield Case(pair, task)


def _other_number(case: Case, others: Sequence[Case]) -> str | None:
    known = _known(case)
    for number in reversed(_NUMBER.findall(case.pair.response)):
        changed = (number[:-1] + last for last in "0123456789")
        strange = next((one for one in changed if one not in known), None)
        if strange and number not in case.pair.instruction:
            return _swap(case.pair.response, number, strange)
    return None


def _other_name(case: Case, others: Sequence[Case]) -> str | None:
    known = _known(case)
    for form in _NAMES:
        names = [name for name in form.findall(case.pair.response) if name not in case.pair.instruction]
        strange = (
            name for other in others for name in form.findall(other.pair.response) if name not in known
        )
        found = next(strange, None) if names else None
        if found:
            return _swap(case.pair.response, names[0], found)
    return None


def _other_answer(case: Case, others: Sequence[Case]) -> str | None:
    known = _known(case)
    elsewhere = [
        other
        for other in others
        if other.pair.document_id != case.pair.document_id and other.pair.response not in known
    ]
    # An answer about a record of the same kind is the mistake that is easily overlooked.
    same_kind = (other for other in elsewhere if other.task.chunk.kind == case.task.chunk.kind)
    found = next(same_kind, elsewhere[0] if elsewhere else None)
    return found.pair.response if found else None


def _swap(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _: new, text)


def _known(case: Case) -> str:
    task = case.task
    facts = task.insight.facts if task.insight else ()
    return "\n".join([task.chunk.header, task.chunk.text, *facts, *task.document.fields.values()])


def _share(found: Sequence[bool]) -> float | None:
    return round(sum(found) / len(found), 4) if found else None


_WAYS: dict[str, Callable[[Case, Sequence[Case]], str | None]] = {
    "another number": _other_number,
    "another name": _other_name,
    "another document's answer": _other_answer,
}
