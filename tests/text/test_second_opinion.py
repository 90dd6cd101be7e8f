"""detect-secrets as an independent second opinion over what is published from the sample corpus.

All its default plugins are asked, without verification over the network. Its entropy plugins report every
word when a single line is asked, so their own limits are applied here; what is left must have a reason.
"""

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from detect_secrets.core.scan import scan_line
from detect_secrets.settings import default_settings

from alchemy import sources
from alchemy.records import SOURCES, Document, Draft, RawObject
from alchemy.settings import CleanOptions
from alchemy.text.document import mask_rejected, to_document
from alchemy.text.sanitize import Sanitizer, entropy
from tests.conftest import ROOT
from tests.text.test_planted_leaks import KINDS, cases

SANITIZER = Sanitizer(b"salt of the tests")
LIMITS = {"Base64 High Entropy String": 4.5, "Hex High Entropy String": 3.0}  # of its configuration
LEAST_LENGTH = 12  # shorter words pass its limit for hex only by being short

# Why an entropy plugin may be wrong, by what it found and the line around it.
REASONS = {
    "a pseudonym": lambda value, line: re.search(rf"<[A-Z_]+_{value}>|<{value}>", line),
    "a git commit": lambda value, line: re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{12}", value),
    "words of a path or name": lambda value, line: re.fullmatch(
        r"[A-Za-z]+\d*([/_+-]+[A-Za-z]*\d*)*=?", value
    ),
}


def published() -> Iterator[str]:
    """Every line of every visible field of the sample corpus as it is published, rejected rows included."""
    root = ROOT / "examples" / "raw"
    for path in sorted(root.rglob("*")):
        source = path.relative_to(root).parts[0]
        if not path.is_file() or source not in SOURCES:
            continue
        raw = RawObject(source, f"raw/{path.relative_to(root).as_posix()}", path.stat().st_size, "0" * 64)
        for row in sources.read(raw, path, CleanOptions()):
            made = (
                to_document(row, raw, SANITIZER, CleanOptions())
                if isinstance(row, Draft)
                else mask_rejected(row, SANITIZER)
            )
            if isinstance(made, Document):
                fields = (f"{name}: {value}" for name, value in made.fields.items())
                texts = [made.title, made.text, made.url, made.key, *fields]
            else:
                texts = [made.sample, made.detail, made.locator]
            for text in texts:
                yield from text.split("\n")


def suspicions(lines: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    with default_settings():
        for line in lines:
            for found in scan_line(line):
                value = found.secret_value or ""
                limit = LIMITS.get(found.type)
                if limit is None or (len(value) >= LEAST_LENGTH and entropy(value) > limit):
                    yield found.type, value, line


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_detect_secrets_finds_nothing_in_what_is_published() -> None:
    excused: Counter[str] = Counter()
    left = []
    for kind, value, line in suspicions(published()):
        why = next((why for why, is_it in REASONS.items() if kind in LIMITS and is_it(value, line)), None)
        if why:
            excused[why] += 1
        else:
            left.append((kind, value, line))
    print(dict(excused))
    assert left == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_second_opinion_would_have_seen_planted_secrets_and_sees_none_after_masking() -> None:
    known = {"aws", "github", "gitlab", "slack", "stripe", "private-key", "jwt", "npm", "connection"}
    texts = [text for kind, _, text, _ in cases(KINDS, 23) if kind in known]

    def named(lines: list[str]) -> int:
        return sum(kind not in LIMITS for text in lines for kind, _, _ in suspicions(iter(text.split("\n"))))

    assert named(texts[::4]) > len(texts[::4]) // 2
    assert named([SANITIZER.mask(text) for text in texts]) == 0
