"""Cleaning with full masking: raw objects to published document lines, against BeautifulSoup and `re`.

    OMP_NUM_THREADS=1 python benchmarks/clean.py                                # 4 MB it makes itself, 2 min
    OMP_NUM_THREADS=1 python benchmarks/clean.py --raw ../shared/corpus/raw     # pages, commits, issues there

Each contender cleans the same files on one core in a child process of its own; CPU time counts, the
imports and the first few records do not, the best of some rounds is shown. All write one JSON line a
record with title, masked text, masked fields, language, URL and version:
- alchemy: read, `to_document`, `to_line`. It also judges boilerplate, counts, and keeps blocks apart.
- naive re: BeautifulSoup for pages, `json`; every rule of `secret_rules.toml` is a compiled pattern of
  `re` that goes once over every text, with the same checks, then the names of the document's people.
- filtered re: the same, but a pattern runs only where one of its rule's keywords stands.
- thorough: with alchemy's two other promises: what base64 and %XX hide is masked, and masking is repeated
  until nothing is left to mask.
The rivals also run with lxml as the parser of BeautifulSoup. `left` says how many of the planted secrets
and names stand in a contender's output: who masks less did less work.
"""

import argparse
import base64
import hashlib
import hmac
import html
import itertools
import json
import random
import re
import string
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_plus

from rich.console import Console
from rich.table import Table

CONTENDERS = (
    "alchemy",
    "naive re",
    "naive re, lxml",
    "filtered re",
    "filtered re, lxml",
    "thorough naive re",
    "thorough filtered re",
)
SOURCES = ("confluence", "git", "jira")  # what the rivals can read
SALT = b"benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--raw", type=Path, help="folder with confluence/, git/ and jira/ to clean instead")
    parser.add_argument("--megabytes", type=float, default=4.0, help="of raw data to make")
    parser.add_argument("--rounds", type=int, default=3, help="the best one is shown")
    parser.add_argument("--only", choices=CONTENDERS, action="append")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(*arguments.child)
        return
    with tempfile.TemporaryDirectory(prefix="clean-benchmark-") as name:
        folder = Path(name)
        write_raw(folder / "warm", 0.05)
        planted = [] if arguments.raw else write_raw(folder / "raw", arguments.megabytes)
        raw = arguments.raw or folder / "raw"
        megabytes = sum(path.stat().st_size for path in raw_files(raw)) / 1e6
        chosen, lines = arguments.only or CONTENDERS, folder / "lines.jsonl"
        results: dict[str, dict[str, Any]] = {}
        for _ in range(arguments.rounds):  # in turn, so that a slow minute of the machine hits all
            for one in chosen:
                row = measure(one, folder / "warm", raw, lines)
                row["left"] = count_left(planted, lines)
                results[one] = min(results.get(one, row), row, key=lambda row: row["seconds"])
    table = Table("", "records", "CPU seconds", "MB/s", "records/s", "ratio", "left", box=None)
    ours = results.get("alchemy")
    for one, row in results.items():
        table.add_row(
            one,
            f"{row['records']:,}",
            f"{row['seconds']:.1f}",
            f"{megabytes / row['seconds']:.2f}",
            f"{row['records'] / row['seconds']:,.0f}",
            f"{row['seconds'] / ours['seconds']:.2f}" if ours else "",
            f"{row['left']} of {len(planted)}" if planted else "",
        )
    console = Console()
    console.print(f"{megabytes:.1f} MB of raw data; seconds are CPU seconds of one core")
    console.print(table)


def raw_files(folder: Path) -> list[Path]:
    return sorted(path for source in SOURCES for path in (folder / source).rglob("*") if path.is_file())


def measure(contender: str, warm: Path, raw: Path, out: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", contender, str(warm), str(raw), str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run_child(contender: str, warm: str, raw: str, out: str) -> None:
    work = AlchemyCleaner() if contender == "alchemy" else Rival(contender)
    for path in raw_files(Path(warm)):  # imports, models, compiled patterns
        list(work.lines(path, Path(warm)))
    records, started = 0, time.process_time()
    with Path(out).open("wb") as file:
        for path in raw_files(Path(raw)):
            for line in work.lines(path, Path(raw)):
                file.write(line)
                records += 1
    print(json.dumps({"records": records, "seconds": time.process_time() - started}))


def count_left(planted: Sequence[str], lines: Path) -> int:
    text = lines.read_text(encoding="utf-8")
    return sum(value in text for value in planted)


# ------------------------------------------------------------------------------------------------ contenders


class AlchemyCleaner:
    def __init__(self) -> None:
        from alchemy.settings import CleanOptions
        from alchemy.text.sanitize import Sanitizer

        self.options = CleanOptions()
        self.sanitizer = Sanitizer(SALT)

    def lines(self, path: Path, folder: Path) -> Iterator[bytes]:
        from alchemy import sources
        from alchemy.records import RawObject, Rejected, to_line
        from alchemy.text.document import mask_rejected, to_document

        key = path.relative_to(folder)
        data = hashlib.sha256(path.read_bytes()).hexdigest()
        raw = RawObject(key.parts[0], f"raw/{key.as_posix()}", path.stat().st_size, data)
        for row in sources.read(raw, path, self.options):
            if isinstance(row, Rejected):
                yield to_line(mask_rejected(row, self.sanitizer))
            else:
                yield to_line(to_document(row, raw, self.sanitizer, self.options))


@dataclass
class Record:
    """What a rival reads from a raw file."""

    key: str
    title: str
    text: str
    fields: dict[str, str]
    people: list[str]
    url: str = ""


class Rival:
    """BeautifulSoup and `json` to read, `re` to mask."""

    def __init__(self, contender: str) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self.parser = "lxml" if contender.endswith("lxml") else "html.parser"
        self.masker = ReMasker(filtered="filtered" in contender, thorough="thorough" in contender)
        self.identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def lines(self, path: Path, folder: Path) -> Iterator[bytes]:
        source = path.relative_to(folder).parts[0]
        read: Callable[[Path], Iterator[Record]] = getattr(self, f"read_{source}")
        for record in read(path):
            mask = partial(self.masker.mask, people=tuple(record.people))
            key = mask(record.key)
            document = {
                "id": f"{source}:{key}",
                "key": key,
                "title": mask(record.title),
                "text": mask(record.text),
                "fields": {name: mask(value) for name, value in record.fields.items() if value},
                "url": mask(record.url),
            }
            line = json.dumps(document, ensure_ascii=False, sort_keys=True)
            document["fields"]["language"] = self.identifier.classify(document["text"][:1000])[0]
            document["version"] = hashlib.sha256(line.encode()).hexdigest()[:20]
            yield json.dumps(document, ensure_ascii=False, sort_keys=True).encode() + b"\n"

    def read_confluence(self, path: Path) -> Iterator[Record]:
        from bs4 import BeautifulSoup

        soup = BeautifulSoup(path.read_bytes(), self.parser)
        title = soup.title.get_text(" ", strip=True) if soup.title else path.stem
        found = soup.select(".page-metadata .author, .page-metadata .editor")
        authors = [node.get_text(" ", strip=True) for node in found]
        root = soup.select_one("#main-content") or soup.select_one(".wiki-content") or soup.body or soup
        for node in root.find_all(["script", "style", "nav", "form", "noscript", "button"]):
            node.decompose()
        yield Record(
            path.stem,
            title,
            root.get_text("\n", strip=True),
            {"author": authors[0] if authors else ""},
            authors,
        )

    def read_git(self, path: Path) -> Iterator[Record]:
        with path.open("rb") as file:
            for line in file:
                commit = json.loads(line)
                text = f"{commit['body']}\nFiles changed: {', '.join(commit['files'][:12])}"
                fields = {
                    "author": commit["author"],
                    "date": commit["date"],
                    "parents": ", ".join(commit["parents"]),
                }
                yield Record(commit["sha"], commit["subject"], text, fields, [commit["author"]])

    def read_jira(self, path: Path) -> Iterator[Record]:
        for issue in json.loads(path.read_bytes())["issues"]:
            fields = issue["fields"]
            comments = (fields.get("comment") or {}).get("comments", [])
            users = [fields.get("reporter"), fields.get("assignee"), *(one.get("author") for one in comments)]
            texts = [fields.get("description") or ""]
            texts += [
                f"{(one.get('author') or {}).get('displayName', '')}:\n{one['body']}" for one in comments
            ]
            named = ("status", "priority", "resolution", "issuetype", "project")
            shown = {name: (fields.get(name) or {}).get("name", "") for name in named}
            shown |= {
                name: (fields.get(name) or {}).get("displayName", "") for name in ("reporter", "assignee")
            }
            shown |= {name: fields.get(name) or "" for name in ("created", "updated")}
            text = _WIKI_LINK.sub(r"\1", _WIKI_MACRO.sub("", "\n\n".join(texts)))
            people = list(dict.fromkeys(user["displayName"] for user in users if user))
            yield Record(issue["key"], fields["summary"], text, shown, people, issue["self"])


_WIKI_MACRO = re.compile(r"\{(?:code|noformat|quote|color|panel)(?::[^{}\n]*)?\}|^h[1-6]\. ", re.M)
_WIKI_LINK = re.compile(r"\[([^\]|\n]+)\|[^\]\n]+\]")


class ReMasker:
    """The rules of `secret_rules.toml` with `re`: one pattern after the other."""

    def __init__(self, filtered: bool, thorough: bool) -> None:
        from alchemy.text.secret_checks import RULES

        self.filtered, self.thorough = filtered, thorough
        table = tomllib.loads(RULES.read_text(encoding="utf-8"))
        rows = [row for row in table["rule"] if not row.get("optional")]
        self.rules = [ReRule(row, table["placeholders"]) for row in rows]

    def mask(self, text: str, people: tuple[str, ...]) -> str:
        names = names_pattern(people)
        while True:
            masked = _ENCODED.sub(self.replace_encoded, text) if self.thorough else text
            masked = self.apply_rules(masked)
            if names:
                masked = names.sub(lambda match: pseudonym("PERSON", match[0]), masked)
            if masked == text or not self.thorough:
                return masked
            text = masked

    def replace_encoded(self, match: re.Match[str]) -> str:
        hidden = decoded(match[0])
        found = hidden is not None and self.apply_rules(hidden) != hidden
        return pseudonym("SECRET", hidden) if found else match[0]

    def apply_rules(self, text: str) -> str:
        if self.filtered:
            lowered = text.lower()
            for rule in self.rules:
                if not rule.keywords or any(word in lowered for word in rule.keywords):
                    text = rule.pattern.sub(rule.replace, text)
        else:
            for rule in self.rules:
                text = rule.pattern.sub(rule.replace, text)
        return text


_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}|[A-Za-z0-9._~+*-]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~+*-]*)+")


def decoded(run: str) -> str | None:
    """The readable text behind base64 or %XX."""
    try:
        if "%" in run:
            text = unquote_plus(run, errors="strict")
        else:
            digits = run.rstrip("=")
            text = base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4)).decode()
    except ValueError:
        return None
    return text if all(one.isprintable() or one in "\t\r\n" for one in text) else None


class ReRule:
    def __init__(self, row: dict[str, Any], placeholders: list[str]) -> None:
        from alchemy.text.secret_checks import CHECKS

        self.kind: str = row["kind"]
        self.keywords = [word.lower() for word in row.get("keywords", ())]
        self.entropy: float = row.get("entropy", 0.0)
        self.check = CHECKS.get(row.get("check", ""))
        allow = [
            one
            for item in row.get("allow", ())
            for one in (placeholders if item == "placeholders" else [item])
        ]
        self.allow = re.compile("|".join(map(_scoped, allow))) if allow else None
        pattern = row["regex"]
        for ours, theirs in _RE2_CLASSES:
            pattern = pattern.replace(ours, theirs)
        self.pattern = re.compile(pattern, re.ASCII)  # RE2's \w, \d and \b are of ASCII too

    def replace(self, match: re.Match[str]) -> str:
        from alchemy.text.secret_checks import CONTEXT, Candidate, entropy

        whole, value = match[0], match["secret"]
        start, end = match.span("secret")
        if self.entropy and entropy(value) < self.entropy:
            return whole
        if self.allow and (self.allow.fullmatch(value) or len(set(value)) == 1):
            return whole
        size = len(value)
        if self.check:
            groups = {name: text or "" for name, text in match.groupdict().items() if name != "secret"}
            before, after = match.string[max(0, start - CONTEXT) : start], match.string[end : end + CONTEXT]
            size = self.check(Candidate(value, before, after, groups))
        if not size:
            return whole
        at = start - match.start()
        return whole[:at] + pseudonym(self.kind, value[:size]) + whole[at + size :]


# What `re` does not know, in Latin letters.
_RE2_CLASSES = (
    (r"\p{Lu}", "[A-ZÀ-ÖØ-Þ]"),
    (r"\pL", "A-Za-zÀ-ÖØ-öø-ɏ"),
    (r"\pM", "\u0300-\u036f"),
)


def _scoped(pattern: str) -> str:
    return f"(?i:{pattern[4:]})" if pattern.startswith("(?i)") else f"(?:{pattern})"


def pseudonym(kind: str, value: str) -> str:
    return f"<{kind}_{hmac.new(SALT, f'{kind}{value}'.encode(), hashlib.sha256).hexdigest()[:8]}>"


@lru_cache(maxsize=4096)
def names_pattern(people: tuple[str, ...]) -> re.Pattern[str] | None:
    names = sorted((re.escape(name) for name in people if len(name) > 3), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(names)})\b") if names else None


# ------------------------------------------------------------------------------------------------ raw data


def write_raw(folder: Path, megabytes: float) -> list[str]:
    """Writes a third each of wiki pages, commits and issues; returns what a contender must mask."""
    maker, share = Maker(), int(megabytes * 1e6 / 3)
    for source in SOURCES:
        (folder / source).mkdir(parents=True)
    size = 0
    while size < share:
        path = folder / "confluence" / f"page-{next(maker.numbers)}.html"
        size += path.write_text(maker.page(), encoding="utf-8")
    with (folder / "git" / "commits.jsonl").open("w", encoding="utf-8") as file:
        while file.tell() < share:
            file.write(json.dumps(maker.commit()) + "\n")
    size = 0
    while size < share:
        path = folder / "jira" / f"issues-{next(maker.numbers)}.json"
        size += path.write_text(json.dumps({"issues": [maker.issue() for _ in range(20)]}), encoding="utf-8")
    return maker.planted


_WORDS = {
    "noun": """broker consumer partition offset schema registry cluster replica checkpoint snapshot index
        query planner executor scheduler parser serializer endpoint gateway proxy cache session shard
        deployment rollout release migration backup pipeline connector transformer table column dashboard
        metric alert retry timeout thread pool socket buffer title attachment permission group workflow""",
    "verb": """reads writes rejects commits replays compacts validates resolves refreshes closes restores
        rebalances flushes drops merges exposes loads encodes decodes retries schedules evicts""",
    "adjective": """stale idle empty remote nested large default upstream internal concurrent partial
        deprecated transient expired optional duplicate""",
    "first": "Maria Jonas Priya Chen Oluwaseun Katarzyna Diego Aiko Fatima Lukas Ingrid Tomasz Leila Marek",
    "syllable": "ba ro ne ka li to ma ve di su per lan gor win sel tar mi no ral bek",
    "digit": "0 1 2 3 4 5 6 7 8 9",
}
_CHOICES = {name: words.split() for name, words in _WORDS.items()}
_SENTENCES = (
    "The {adjective} {noun} {verb} every {noun} of version {digit}.{digit} when the leader changes.",
    "During a rolling restart the {noun} {verb} its {adjective} {noun} without waiting for the {noun}.",
    "If the header is missing, a {noun} {verb} the {noun} and logs a warning with the full path.",
    "Because the previous run left a temporary {noun} behind, our {adjective} {noun} never {verb} it.",
    "As described in the operations guide, each {noun} {verb} {digit}{digit} records before the {noun} does.",
    "Nobody {verb} that {adjective} {noun} unless the feature flag of the {noun} is set.",
)
_CODE = """public void run(Context context, List<Item> {noun}Items) {
    for (Item item : {noun}Items) {
        {noun}Client.{verb}(item.getName(), {digit}{digit}0);
        if (context.is{digit}() && !item.{verb}) { throw new IllegalStateException("{adjective} {noun}"); }
    }
}
    at org.example.{noun}.{noun}Task.run({noun}Task.java:{digit}{digit}{digit})
    at org.example.{noun}.Main.main(Main.java:{digit}{digit})"""
_SECRETS = (  # sentences and the values that stand there; each "%", "^" and "#" is one of `_MARKS`
    ("Set {} in the profile.", "AKIA" + 16 * "^"),
    ("The bot uses {} for releases.", "ghp_" + 36 * "%"),
    ("Alerts go out with {} to the channel.", "xoxb-1#########-" + 24 * "%"),
    ("Start it with db.password={} on staging.", "%%%%7x!%%%%%"),
    ("It connects to postgresql://app:{}@db.internal:5432/main then.", 14 * "%"),
    ("The header was Authorization: Bearer {} as before.", f"eyJ{30 * '%'}.eyJ{60 * '%'}.{43 * '%'}"),
    ("Write to {} about it.", "%%%%%%%%@partner.example"),
    ("The host forwards to {} at night.", "18#.21#.19#.23#"),
    ("Call {} when it fails.", "+1 415-555-####"),
    ("Its account {} is full.", "sk_live_" + 24 * "%"),
)
_SLOT = re.compile(r"\{(\w+)\}")
_MARKS = {"%": string.ascii_letters + string.digits, "^": string.ascii_uppercase, "#": "123456789"}


class Maker:
    """Makes records; every secret, name and address that it writes is kept in `planted`."""

    def __init__(self) -> None:
        self.rng = random.Random(17)
        self.numbers = itertools.count(1000)
        self.people = [self.person() for _ in range(120)]
        self.planted = [value for person in self.people for value in person]

    def fill(self, template: str) -> str:
        """A random word in the place of each {noun}, {verb}, {digit} ..."""
        return _SLOT.sub(lambda match: self.rng.choice(_CHOICES[match[1]]), template)

    def person(self) -> tuple[str, str]:
        """Name and address."""
        name = self.fill("{first} ") + self.fill("{syllable}{syllable}{syllable}").capitalize()
        return name, f"{name.lower().replace(' ', '.')}{next(self.numbers)}@corp.example"

    def page(self) -> str:
        author, editor = self.rng.sample(self.people, 2)
        blocks = [self.page_block() for _ in range(self.rng.randint(8, 30))]
        blocks.append(f"<p>Questions about this page go to {author[0]} (<em>{author[1]}</em>).</p>")
        entry = (
            '<li class="menu-item"><a href="/display/OPS/{noun}"><span class="label">{noun}</span></a></li>\n'
        )
        return _PAGE.format(
            title=self.title(),
            menu=self.fill(20 * entry),
            author=author[0],
            editor=editor[0],
            content="\n".join(blocks),
        )

    def page_block(self) -> str:
        match self.rng.choices(("p", "h2", "ul", "table", "pre"), (10, 4, 3, 2, 3))[0]:
            case "h2":
                return f'<h2 id="Operations-{next(self.numbers)}">{self.title()}</h2>'
            case "ul":
                items = [f"<li>{self.sentence()}</li>" for _ in range(self.rng.randint(2, 7))]
                return f'<ul class="alternate">{"".join(items)}</ul>'
            case "table":
                row = "<tr>" + 4 * '<td class="confluenceTd">{noun}</td>' + "</tr>\n"
                body = self.fill(self.rng.randint(3, 9) * row)
                return f'<div class="table-wrap"><table class="confluenceTable">{body}</table></div>'
            case "pre":
                return (
                    f'<div class="code panel"><pre class="java">{html.escape(self.fill(_CODE))}</pre></div>'
                )
        link = self.fill('<a href="/display/OPS/{noun}" class="external-link">{noun}</a>')
        return f"<p>{html.escape(self.paragraph())} See {link}.</p>"

    def commit(self) -> dict[str, Any]:
        author, email = self.rng.choice(self.people)
        body = "\n\n".join(self.paragraph() for _ in range(self.rng.choice((0, 0, 1, 1, 2))))
        if self.rng.random() < 0.3:
            body += f"\n\nSigned-off-by: {author} <{email}>"
        path = "core/src/main/java/org/example/{noun}/{noun}/{adjective}_{noun}.java"
        files = [self.fill(path) for _ in range(self.rng.randint(1, 8))]
        return {
            "sha": self.hexadecimal(),
            "author": author,
            "email": email,
            "date": self.moment(),
            "parents": [self.hexadecimal()],
            "subject": f"OPS-{next(self.numbers)} {self.title()}",
            "body": body,
            "files": files,
            "n_files": len(files),
        }

    def issue(self) -> dict[str, Any]:
        number = next(self.numbers)
        address = f"https://issues.example.org/rest/api/2/issue/{number}"
        comments = [
            {"author": self.user(), "body": self.wiki(), "created": self.moment()}
            for _ in range(self.rng.randint(0, 8))
        ]
        named = {"status": "Resolved", "priority": "Major", "resolution": "Fixed", "issuetype": "Bug"}
        return {
            "id": str(number),
            "self": address,
            "key": f"OPS-{number}",
            "fields": {
                **{name: {"self": f"{address}/{name}", "name": value} for name, value in named.items()},
                **{f"customfield_{number}": None for number in range(12310, 12350)},
                "summary": self.title(),
                "description": self.wiki(),
                "project": {"key": "OPS", "name": "Operations"},
                "reporter": self.user(),
                "assignee": self.user(),
                "created": self.moment(),
                "updated": self.moment(),
                "comment": {"comments": comments, "total": len(comments)},
            },
        }

    def user(self) -> dict[str, Any]:
        name, email = self.rng.choice(self.people)
        login = email.partition("@")[0]
        return {"name": login, "key": login, "displayName": name, "emailAddress": email, "active": True}

    def wiki(self) -> str:
        text = "\n\n".join(self.paragraph() for _ in range(self.rng.randint(1, 3)))
        code = f"\n\n{{code:java}}\n{self.fill(_CODE)}\n{{code}}"
        return text + code if self.rng.random() < 0.4 else text

    def title(self) -> str:
        return self.fill("The {adjective} {noun} {verb} a {noun}")

    def sentence(self) -> str:
        return self.fill(self.rng.choice(_SENTENCES))

    def paragraph(self) -> str:
        sentences = [self.sentence() for _ in range(self.rng.randint(2, 6))]
        if self.rng.random() < 0.08:
            sentences.insert(1, self.secret())
        return " ".join(sentences)

    def secret(self) -> str:
        """A sentence with a value that must not be published."""
        sentence, form = self.rng.choice(_SECRETS)
        value = "".join(self.rng.choice(_MARKS.get(mark, mark)) for mark in form)
        if self.rng.random() < 0.2:
            hidden = f"password: {value}"
            value = self.rng.choice((base64.b64encode(hidden.encode()).decode(), quote(hidden, safe="")))
        self.planted.append(value)
        return sentence.format(value)

    def hexadecimal(self) -> str:
        return f"{self.rng.getrandbits(160):040x}"

    def moment(self) -> str:
        return self.fill("202{digit}-04-1{digit}T09:3{digit}:00.000+0000")


_PAGE = """<!DOCTYPE html>
<html><head><title>Operations : {title}</title>
<link rel="stylesheet" href="styles/site.css" type="text/css" /><script src="/batch.js?locale=en"></script>
<style>.confluenceTd {{ border: 1px solid #ddd; padding: 7px 10px }}</style>
</head><body class="theme-default aui-layout aui-theme-default">
<div id="page"><div id="header"><nav class="aui-header"><ul>{menu}</ul></nav></div>
<div id="main" class="aui-page-panel"><div id="breadcrumb-section"><ol id="breadcrumbs">
<li class="first"><span><a href="index.html">Operations</a></span></li></ol></div>
<h1 id="title-heading" class="pagetitle"><span id="title-text">Operations : {title}</span></h1>
<div id="content" class="view"><div class="page-metadata">Created by <span class="author">{author}</span>,
last modified by <span class="editor">{editor}</span> on Mar 03, 2024</div>
<div id="main-content" class="wiki-content group">
{content}
</div></div></div>
<div id="footer"><section class="footer-body"><p>Document generated by Confluence</p></section></div>
</div></body></html>
"""


if __name__ == "__main__":
    main()
