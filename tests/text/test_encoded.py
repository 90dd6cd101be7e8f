"""Secrets that are hidden in base64 or in %XX: one level is decoded, the whole run is masked."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemy.text.encoded import decoded_runs
from alchemy.text.sanitize import Sanitizer

SANITIZER = Sanitizer(b"salt of the tests")
GITHUB = "ghp_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zAcCeF"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("kind", "hidden", "value"),
    [
        ("GITHUB_TOKEN", f"token={GITHUB}", GITHUB),
        ("EMAIL", "write to jane.doe@example.com please", "jane.doe@example.com"),
        ("SECRET", "db.password=Tr0ub4dor\n", "Tr0ub4dor"),
        ("IP", "联系主机 10.24.20.77 端口", "10.24.20.77"),
    ],
)
@pytest.mark.parametrize(
    "encode",
    [
        b64,
        lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
        lambda text: quote(text, safe=""),
    ],
)
def test_an_encoded_secret_gets_the_pseudonym_of_what_it_hides(kind, hidden, value, encode):
    run = encode(hidden)
    if "%" not in run and run == hidden:
        return
    text = f"data: {run} end"
    masked = SANITIZER.mask(text)
    assert masked == f"data: {SANITIZER.pseudonym(kind, value)} end"
    assert SANITIZER.leaks(masked) == []


def test_base64_is_found_over_wrapped_lines_and_a_following_word_stays():
    hidden = "harmless words before it, and then more of them, " * 2 + f"the key is {GITHUB} indeed, no other"
    lines = base64.encodebytes(hidden.encode()).decode()
    assert lines.count("\n") >= 2
    masked = SANITIZER.mask(f"Data:\n{lines}Next line of words.")
    assert masked.startswith(f"Data:\n{SANITIZER.pseudonym('GITHUB_TOKEN', GITHUB)}\n")
    assert masked.endswith("Next line of words.")


def test_only_one_level_is_decoded():
    assert SANITIZER.find(b64(b64(f"token={GITHUB}"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "2b70202aaec3db48fd5ff4d996d974444a750a11",
        "org/apache/kafka/clients/consumer/KafkaConsumer",
        "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4",
        "https://example.org/a%20b?q=caf%C3%A9",
        b64("nothing to hide here, only a long sentence"),
        b64("already masked: <EMAIL_3f2a90c1> stays"),
        "100%25 sure",
    ],
)
def test_harmless_runs_stay(text):
    assert SANITIZER.mask(text) == text


def test_names_are_found_in_links():
    token = SANITIZER.person("Jane Doe")
    assert (
        SANITIZER.mask("?q=assignee%3DJane%20Doe&r=Jane+Doe", ["Jane Doe"])
        == f"?q=assignee%3D{token}&r={token}"
    )
    assert (
        SANITIZER.mask("?a=J%C3%BCrgen+Klose", ["Jürgen Klose"]) == f"?a={SANITIZER.person('Jürgen Klose')}"
    )


def test_megabytes_of_encoded_bytes_are_passed_over():
    text = base64.b64encode(bytes(range(256)) * 8000).decode() + " " + "%41" * 300_000
    assert SANITIZER.find(text) == []


@given(st.text(max_size=60))
def test_what_is_decoded_never_is_longer_than_its_run(text):
    data = f"{b64(text)} {quote(text)} {text}".encode("utf-8", "replace")
    for run in decoded_runs(data):
        assert len(run.text.encode()) <= run.end - run.start
        assert data[run.start : run.end].isascii()
