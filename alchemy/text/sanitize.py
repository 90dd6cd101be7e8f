"""Masks secrets and personal data: each value becomes a stable typed pseudonym such as `<EMAIL_3f2a90c1>`.

The rules are data (`secret_rules.toml`). One scan for all their keywords together (an RE2 set) decides
which regexes run at all, so a text without suspicious words costs about the same with 10 rules as with
500 (measured on one core: prose 300 MB/s, commits and issues full of names and addresses 12 MB/s). RE2
has no backtracking: no text, however hostile, makes a rule slow. What a regex cannot decide (a checksum,
an IP address against a version number) a function of `secret_checks` decides. What is hidden in base64 or in
%XX is decoded one level (`encoded`); the whole encoded run is masked there.

Masking is repeated until nothing more is found, therefore `mask(mask(x)) == mask(x)` and a masked text
has no leaks by construction. It ends because a finding never touches a pseudonym: every round turns
more of the text into pseudonyms.
"""

import hashlib
import hmac
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_plus

import re2

from alchemy.errors import BadConfig
from alchemy.text.encoded import decoded_runs
from alchemy.text.secret_checks import CHECKS, CJK, CONTEXT, RULES, Candidate, Check, entropy, words

TOKEN_DIGITS = 8  # 4 would give two people of a few hundred the same pseudonym (birthday bound)

_APART = "\n" * (CONTEXT + 1)  # between texts that must not be context for each other
_TOKEN = re.compile(r"<[A-Z][A-Z_]{1,30}_[0-9a-f]{4,8}>")


@dataclass(frozen=True, slots=True)
class Finding:
    """A span of a text that must not be published, and the rule that says so."""

    start: int
    end: int
    kind: str
    rule: str
    hidden: str = ""  # the value, where the span holds it encoded


@dataclass(frozen=True, slots=True)
class _Span:
    """A finding before overlaps are settled; positions are bytes, then characters."""

    start: int
    end: int
    index: int  # of the rule: its priority
    hidden: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    kind: str
    hint: str  # RE2, any case: cheap, and found in every text that the pattern matches
    pattern: Any  # compiled re2, over UTF-8 bytes
    groups: tuple[tuple[str, int], ...]
    secret: int  # number of the group that is masked
    entropy: float
    check: Check | None
    allow: Any | None  # compiled re2
    optional: bool  # applied only where the caller asks for its kind


class Sanitizer:
    """Finds and masks secrets and personal data. One per process: it is cheap to pickle and to make again.

    Args:
        salt: Secret key of the pseudonyms. The same salt gives the same pseudonym for the same value; without
            it a pseudonym cannot be tested against a guessed value.
        addresses: Whether street addresses are masked too; their rules are less sure than the others.
    """

    def __init__(self, salt: bytes, *, addresses: bool = False) -> None:
        self._salt = salt
        self._addresses = addresses
        self._rules = default_rules()
        self._keyword_set = _keyword_set()

    def __reduce__(self) -> tuple[Any, tuple[bytes, bool]]:
        return _sanitizer, (self._salt, self._addresses)

    def mask(self, text: str, people: Sequence[str] = ()) -> str:
        """Replaces every finding, and every name of `people`, by its pseudonym. Idempotent."""
        names = tuple(people)
        while True:
            masked = text
            if findings := self.find(masked):
                masked = self.replace(masked, findings)
            if any(word in masked for word in _name_words(names)):
                masked = _names_pattern(names).sub(self._mask_name, masked)
            if masked == text:
                return text
            text = masked

    def mask_all(self, texts: Sequence[str], people: Sequence[str] = ()) -> list[str]:
        """`mask` of each text on its own. One look at all of them says which ones need it: mostly none."""
        joined = _APART.join(texts)
        found = self.find(joined)
        words = [word for word in _name_words(tuple(people)) if word in joined]
        masked, start, next_one = [], 0, 0
        for text in texts:
            end = start + len(text)
            while next_one < len(found) and found[next_one].end <= start:
                next_one += 1
            touched = next_one < len(found) and found[next_one].start < end
            masked.append(self.mask(text, people) if touched or any(word in text for word in words) else text)
            start = end + len(_APART)
        return masked

    def find(self, text: str) -> list[Finding]:
        """All secrets and personal data in `text`, in order, without overlaps. Pseudonyms are none."""
        data = text.encode("utf-8", "replace")  # a lone surrogate becomes one byte: offsets stay right
        spans = [*self._plain_spans(data), *self._encoded_spans(data)]
        if not spans:
            return []
        merged = _merge(sorted(spans, key=lambda span: (span.start, span.end, span.index)))
        if not text.isascii():
            merged = _to_characters(data, merged)
        tokens = [match.span() for match in _TOKEN.finditer(text)] if "<" in text else []
        return [
            Finding(one.start, one.end, self._rules[one.index].kind, self._rules[one.index].id, one.hidden)
            for one in _outside(merged, tokens)
        ]

    def leaks(self, text: str) -> list[Finding]:
        """What a published text still contains; empty for everything that `mask` returned."""
        return self.find(text)

    def replace(self, text: str, findings: Iterable[Finding]) -> str:
        """`text` with a pseudonym in the place of each finding; they are in order and do not overlap."""
        pieces, position = [], 0
        for finding in findings:
            value = finding.hidden or text[finding.start : finding.end]
            token = self.person(value) if finding.kind == "PERSON" else self.pseudonym(finding.kind, value)
            pieces += [text[position : finding.start], token]
            position = finding.end
        return "".join([*pieces, text[position:]])

    def pseudonym(self, kind: str, value: str) -> str:
        digest = hmac.new(self._salt, f"{kind}\0{value}".encode("utf-8", "replace"), hashlib.sha256)
        return f"<{kind}_{digest.hexdigest()[:TOKEN_DIGITS]}>"

    def person(self, name: str) -> str:
        """The pseudonym of a name, the same that `mask` puts in its place."""
        return self.pseudonym("PERSON", " ".join(name.split()))

    def _plain_spans(self, data: bytes) -> Iterator[_Span]:
        for index in self._keyword_set.Match(data) or ():
            rule = self._rules[index]
            if rule.optional and not self._addresses:
                continue
            for match in rule.pattern.finditer(data):
                start, end = match.span(rule.secret)
                if length := _judge(rule, data, start, end, match):
                    yield _Span(start, start + length, index)

    def _encoded_spans(self, data: bytes) -> Iterator[_Span]:
        """Whole encoded runs, each named after the first finding behind it; one level is decoded."""
        for run in decoded_runs(data):
            hidden = run.text.encode()
            spans = [
                span
                for span in self._plain_spans(hidden)
                if not _TOKEN.search(hidden[span.start : span.end].decode())
            ]
            if spans:
                best = min(spans, key=lambda span: (span.index, span.start))
                value = hidden[best.start : best.end].decode()
                yield _Span(run.start, run.end, best.index, value)

    def _mask_name(self, match: re.Match[str]) -> str:
        if match["token"]:
            return match[0]
        return self.person(unquote_plus(match[0]) if re.search(r"[%+]", match[0]) else match[0])


def _sanitizer(salt: bytes, addresses: bool) -> Sanitizer:
    return Sanitizer(salt, addresses=addresses)


def is_name(name: str) -> bool:
    """Whether a name of an author field is safe to search for in running text.

    Short names and role accounts ("root", "jenkins") are also ordinary words; masking them everywhere would
    destroy the text and protect nobody.
    """
    name = " ".join(name.split())
    if CJK.search(name):
        return 2 <= len(name) <= 40
    letters = sum(character.isalpha() for character in name)
    return (
        letters >= 4
        and len(name) <= 100
        and not is_role(name)
        and name.casefold() not in words("first_names")
    )


def is_role(name: str) -> bool:
    """Whether an author field names nobody in particular: "root", "jenkins", "dependabot[bot]"."""
    return name.casefold() in words("roles") or name.endswith("[bot]")


def is_token(text: str) -> bool:
    """Whether `text` is a pseudonym and nothing else."""
    return bool(_TOKEN.fullmatch(text))


# ------------------------------------------------------------------------------------------------ rules


@cache
def default_rules() -> tuple[Rule, ...]:
    return load_rules(RULES)


def load_rules(path: Path) -> tuple[Rule, ...]:
    """Reads rules in order of priority. Raises BadConfig naming the rule that is wrong."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    placeholders = tuple(table.get("placeholders", ()))
    rules: dict[str, Rule] = {}
    for row in table["rule"]:
        try:
            rule = _rule(row, placeholders)
        except (KeyError, re2.error) as error:
            raise BadConfig(f"{path.name}: rule {row.get('id', '?')!r}: {error!r}") from None
        if rule.id in rules:
            raise BadConfig(f"{path.name}: rule {rule.id!r} is there twice")
        rules[rule.id] = rule
    return tuple(rules.values())


def _rule(row: dict[str, Any], placeholders: tuple[str, ...]) -> Rule:
    pattern = re2.compile(row["regex"].encode())
    groups = {name.decode(): number for name, number in pattern.groupindex.items()}
    secret = groups.pop("secret")
    allow = [
        one for item in row.get("allow", ()) for one in (placeholders if item == "placeholders" else [item])
    ]
    return Rule(
        id=row["id"],
        kind=row["kind"],
        hint="|".join(re2.escape(word) for word in row["keywords"]) if "keywords" in row else row["hint"],
        pattern=pattern,
        groups=tuple(groups.items()),
        secret=secret,
        entropy=row.get("entropy", 0.0),
        check=CHECKS[row["check"]] if "check" in row else None,
        allow=re2.compile("|".join(f"(?:{one})" for one in allow)) if allow else None,
        optional=row.get("optional", False),
    )


@cache
def _keyword_set() -> Any:
    """An RE2 set whose member number i is the hint of rule i: one pass tells which rules may match."""
    options = re2.Options()
    options.case_sensitive = False
    keyword_set = re2.Set.SearchSet(options)
    for rule in default_rules():
        keyword_set.Add(rule.hint)
    keyword_set.Compile()
    return keyword_set


def _judge(rule: Rule, data: bytes, start: int, end: int, match: Any) -> int:
    """How many bytes of `data[start:end]` are a finding of this rule."""
    value = data[start:end].decode()
    if rule.entropy and entropy(value) < rule.entropy:
        return 0
    if rule.allow and (rule.allow.fullmatch(value) or len(set(value)) == 1):
        return 0
    if rule.check is None:
        return end - start
    candidate = Candidate(
        value=value,
        before=data[max(0, start - CONTEXT) : start].decode("utf-8", "ignore"),
        after=data[end : end + CONTEXT].decode("utf-8", "ignore"),
        groups={name: (match.group(number) or b"").decode() for name, number in rule.groups},
    )
    return len(value[: rule.check(candidate)].encode())


def _merge(spans: list[_Span]) -> list[_Span]:
    """Joins overlapping spans, sorted by start, into one that the rule with the highest priority names."""
    merged = [spans[0]]
    for span in spans[1:]:
        last = merged[-1]
        if span.start < last.end:
            start, end = last.start, max(last.end, span.end)
            whole = [one.hidden for one in (last, span) if (one.start, one.end) == (start, end)]
            hidden = next(filter(None, whole), "")
            merged[-1] = _Span(start, end, min(last.index, span.index), hidden)
        else:
            merged.append(span)
    return merged


def _to_characters(data: bytes, spans: list[_Span]) -> list[_Span]:
    """Byte offsets to character offsets, in one walk."""
    converted, byte, character = [], 0, 0
    for span in spans:
        first = character + len(data[byte : span.start].decode())
        character = first + len(data[span.start : span.end].decode())
        byte = span.end
        converted.append(replace(span, start=first, end=character))
    return converted


def _outside(spans: list[_Span], tokens: list[tuple[int, int]]) -> Iterator[_Span]:
    """The spans that touch no token; both lists are sorted and free of overlaps."""
    position = 0
    for span in spans:
        while position < len(tokens) and tokens[position][1] <= span.start:
            position += 1
        if position == len(tokens) or span.end <= tokens[position][0]:
            yield span


@lru_cache(maxsize=4096)
def _names(people: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are safe to look for, the longest first."""
    names = {" ".join(name.split()) for name in people if is_name(name) and not _TOKEN.search(name)}
    return tuple(sorted(names, key=lambda name: (-len(name), name)))


@lru_cache(maxsize=4096)
def _name_words(people: tuple[str, ...]) -> tuple[str, ...]:
    """One of these stands in every text that holds a name: most texts need no search for all its forms."""
    words = []
    for name in _names(people):
        word = max(name.split(), key=lambda word: (quote(word) == word, len(word)))
        words += [word] if quote(word) == word else [word, "%"]
    return tuple(dict.fromkeys(words))


@lru_cache(maxsize=4096)
def _names_pattern(people: tuple[str, ...]) -> re.Pattern[str]:
    """Longest names first, any white space between words, never inside a word or a pseudonym."""
    forms = []
    for name in _names(people):
        # In links a blank is "+" or "%20", and apostrophes and letters beyond ASCII are written as bytes.
        form = r"(?:\s+|%20|\+)".join(map(_word_form, name.split()))
        # Chinese is written without spaces: a name there has no word boundary to ask for.
        forms.append(form if CJK.search(name) else rf"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{{2}})){form}(?!\w)")
    return re.compile(rf"(?P<token>{_TOKEN.pattern})|{'|'.join(forms)}")


def _word_form(word: str) -> str:
    plain, quoted = re.escape(word), quote(word)
    return plain if quoted == word else f"(?:{plain}|(?i:{re.escape(quoted)}))"
