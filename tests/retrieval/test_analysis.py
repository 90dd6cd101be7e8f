"""What the words of a question limit it to, and above all what they do not."""

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemy.retrieval.analysis import analyze
from alchemy.retrieval.index import Filters
from alchemy.retrieval.lexical import units

TODAY = date(2026, 11, 21)  # a Saturday
PULLS, COMMITS, ISSUES = ("pull_request",), ("commit",), ("issue",)


@pytest.mark.parametrize(
    ("query", "filters", "rest"),
    [
        ("PRs since March about paging", Filters(kinds=PULLS, since="2026-03-01"), "about paging"),
        ("Which PRs touched fonts since March?", Filters(kinds=PULLS, since="2026-03-01"), "touched fonts"),
        ("Which PR says who signs?", Filters(kinds=PULLS), "says who signs"),
        ("PRs since 2024: who signs?", Filters(kinds=PULLS, since="2024-01-01"), "who signs"),
        ("list all commits on the export", Filters(kinds=COMMITS), "on the export"),
        (
            "commits last week about retries",
            Filters(kinds=COMMITS, since="2026-11-09", until="2026-11-16"),
            "about retries",
        ),
        (
            "yesterday's commits to the exporter",
            Filters(kinds=COMMITS, since="2026-11-20", until="2026-11-21"),
            "to the exporter",
        ),
        (
            "Jira issues from 2023 about fonts",
            Filters(("jira",), since="2023-01-01", until="2024-01-01"),
            "about fonts",
        ),
        (
            "fonts in pages updated after 2024-05-01",
            Filters(kinds=("page",), since="2024-05-02"),
            "fonts in",
        ),
        ("Do tickets opened before 3 May 2025 name it?", Filters(kinds=ISSUES, until="2025-05-03"), None),
        (
            "merge requests between March 2024 and May 2024",
            Filters(kinds=PULLS, since="2024-03-01", until="2024-06-01"),
            None,
        ),
        ("commits from 2024-02-01 onwards", Filters(kinds=COMMITS, since="2024-02-01"), None),
        ("commits in December", Filters(kinds=COMMITS, since="2025-12-01", until="2026-01-01"), None),
        ("commits of the last 10 days", Filters(kinds=COMMITS, since="2026-11-11", until="2026-11-22"), None),
        ("commits since Monday", Filters(kinds=COMMITS, since="2026-11-16"), None),
        ("PRs merged this quarter", Filters(kinds=PULLS, since="2026-10-01", until="2027-01-01"), None),
        ("issues and PRs since 2023", Filters(kinds=(*ISSUES, *PULLS), since="2023-01-01"), None),
        ("Jira issues and commits from 2023", Filters(since="2023-01-01", until="2024-01-01"), None),
        ("In Jira, who looks after fonts?", Filters(("jira",)), "who looks after fonts?"),
        ("According to Confluence, what is a lantern?", Filters(("confluence",)), "what is a lantern?"),
        ("2024年3月以来的提交里谁改了导出？", Filters(kinds=COMMITS, since="2024-03-01"), "里谁改了导出?"),
        ("上周的issue", Filters(kinds=ISSUES, since="2026-11-09", until="2026-11-16"), None),
        ("哪些提交修改了网关？", Filters(kinds=COMMITS), "修改了网关?"),
        ("上个月合并的PR", Filters(kinds=PULLS, since="2026-10-01", until="2026-11-01"), None),
        ("最近7天的提交", Filters(kinds=COMMITS, since="2026-11-14", until="2026-11-22"), None),
        ("2024-05-01之后更新的页面", Filters(kinds=("page",), since="2024-05-01"), None),
    ],
)  # fmt: skip
def test_documents_that_are_asked_for_limit_the_search(
    query: str, filters: Filters, rest: str | None
) -> None:
    found = analyze(query, TODAY)
    assert found.filters == filters
    if rest is not None:
        assert found.query.rstrip("?") == rest.rstrip("?")


@pytest.mark.parametrize(
    "query",
    [
        "since version 2.3 PRs fail",
        "PRs since 2.3",
        "commits since 2024.1",
        "How many customers were hit in February 2026?",
        "Which load did we pay for after the outage in May?",
        "What caused the incident of 14 July 2026?",
        "Were there issues in March with the gateway?",
        "Which issues do customers have with the tags?",
        "Who reviews a commit before it is merged?",
        "Do all commits need a review?",
        "Which PR template do we use?",
        "What commit style is asked for?",
        "How do I log time in Jira?",
        "Which page of the handbook names the torque?",
        "I commit to nothing until May",
        "Mr. March may open a ticket",
        "提交代码之前要做什么？",
        "上周发生了什么故障？",
        "",
    ],
)
def test_other_questions_are_left_alone(query: str) -> None:
    found = analyze(query, TODAY)
    assert (found.query, found.filters) == (query, Filters())


def test_the_questions_about_the_sample_ask_for_no_kind_and_no_date() -> None:
    rows = (Path(__file__).parents[2] / "examples" / "questions.jsonl").read_text(encoding="utf-8")
    asked = [json.loads(row)["question"] for row in rows.splitlines()]
    assert len(asked) == 40
    assert [question for question in asked if analyze(question, TODAY).filters] == []


def test_without_a_today_only_dates_in_full_are_understood() -> None:
    assert analyze("commits since March 2024 on fonts").filters == Filters(kinds=COMMITS, since="2024-03-01")
    assert not analyze("commits last week").filters
    assert not analyze("tickets opened since March").filters
    assert analyze("Which PRs changed fonts since March?").filters == Filters(kinds=PULLS)


def test_a_day_that_does_not_exist_is_no_date() -> None:
    assert not analyze("commits since 2023-02-31", TODAY).filters
    assert not analyze("commits since 31 February", TODAY).filters


def test_a_question_of_nothing_but_filters_keeps_its_words() -> None:
    found = analyze("commits last week", TODAY)
    assert found.query == "commits last week"
    assert found.filters.since == "2026-11-09"


WORDS = (
    "which list PRs commits issues pages since after between in and March 2024 2024-05-01 last week the"
    " 上周 的 提交 年 , ?"
)


@given(
    st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join) | st.text(max_size=60),
    st.dates(date(1970, 1, 1), date(2999, 1, 1)),
)
def test_whatever_is_asked_there_is_something_left_to_look_for(query: str, today: date) -> None:
    found = analyze(query, today)
    assert any(unit.content for unit in units(found.query)) == any(unit.content for unit in units(query))
    for day in (found.filters.since, found.filters.until):
        assert not day or date.fromisoformat(day)


def test_a_long_text_of_nothing_but_documents_is_read_in_one_go() -> None:
    found = analyze("issues pages " * 300 + "commits since 2024", TODAY)
    assert found.filters == Filters(kinds=COMMITS, since="2024-01-01")
