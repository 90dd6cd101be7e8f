"""Mixed raw data for benchmarks, from a seed: git, Jira, Confluence and documents, with secrets in them."""

import json
import random
from pathlib import Path

# fmt: off
_NOUNS = ("gateway", "scheduler", "retry", "lock", "shard", "replica", "cursor", "ledger", "index", "adapter",
          "tenant", "session", "quota")
_VERBS = ("waits", "retries", "drops", "rebuilds", "checks", "rewrites", "delays", "rejects", "copies",
          "measures", "closes")
# fmt: on
_FIRST, _LAST = ("Ada", "Emil", "Noor", "Ravi", "Lin"), ("Okafor", "Berg", "Sato", "Duarte")
_ENDS = ("before the next window", "after a restart", "for every tenant", "under load", "without a lock")
_SECRETS = (
    "password = 'hunter2hunter2'",
    "ghp_{0:036d}",
    "postgres://ops:s3cr3t{0:06d}@db.example.org/main",
    "mail {1}.{2}@example.org",
    "call +1 415 555 {3:04d}",
    "from 203.0.113.{4}",
)


def write_raw(folder: Path, objects: int, object_bytes: int, seed: int = 0) -> int:
    """Writes `objects` files of about `object_bytes` each under `folder/<source>/`; returns their bytes."""
    total = 0
    for number in range(objects):
        source = ("git", "jira", "confluence", "documents")[number % 4]
        path = folder / source / f"{number:05d}.{_SUFFIX[source]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(raw_text(source, number, object_bytes, seed), encoding="utf-8")
        total += path.stat().st_size
    return total


def raw_text(source: str, number: int, size: int, seed: int = 0) -> str:
    """One object of a source, of about `size` characters."""
    rng = random.Random(f"{seed} {source} {number}")
    return _MAKE[source](rng, number, size)


def _git(rng: random.Random, number: int, size: int) -> str:
    lines, length = [], 0
    while length < size:
        row = {
            "sha": f"{rng.getrandbits(160):040x}",
            "author": _person(rng),
            "email": f"{_person(rng).replace(' ', '.').lower()}@example.org",
            "date": f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}T10:00:00+00:00",
            "subject": f"HAUL-{rng.randint(1, 9999)} {_sentence(rng)}",
            "body": _prose(rng, rng.randint(1, 6)),
            "files": [f"src/{rng.choice(_NOUNS)}/{rng.choice(_VERBS)}.py" for _ in range(rng.randint(1, 5))],
            "n_files": 3,
            "insertions": rng.randint(0, 500),
            "deletions": rng.randint(0, 300),
        }
        lines.append(json.dumps(row))
        length += len(lines[-1])
    return "\n".join(lines) + "\n"


def _jira(rng: random.Random, number: int, size: int) -> str:
    issues, length = [], 0
    while length < size:
        comments = [
            {
                "author": {"displayName": _person(rng)},
                "body": _prose(rng, 3),
                "created": "2026-01-02T10:00:00.000+0000",
            }
            for _ in range(rng.randint(0, 3))
        ]
        fields = {
            "summary": _sentence(rng),
            "description": f"h2. Steps\n\n{_prose(rng, 8)}\n\n{{code}}\n{rng.choice(_NOUNS)}()\n{{code}}\n",
            "status": {"name": "Closed"},
            "project": {"key": "HAUL", "name": "Haul"},
            "reporter": {"displayName": _person(rng)},
            "created": "2026-01-01T10:00:00.000+0000",
            "updated": f"2026-03-{rng.randint(1, 28):02d}T10:00:00.000+0000",
            "comment": {"total": len(comments), "comments": comments},
        }
        issues.append(json.dumps({"key": f"HAUL-{number * 1000 + len(issues)}", "fields": fields}))
        length += len(issues[-1])
    return f'{{"startAt": 0, "total": {len(issues)}, "issues": [{",".join(issues)}]}}'


def _confluence(rng: random.Random, number: int, size: int) -> str:
    sections, length = [], 0
    while length < size:
        rows = "".join(
            f"<tr><td>{rng.choice(_NOUNS)}</td><td>{rng.randint(1, 99)}</td></tr>" for _ in range(5)
        )
        sections.append(
            f"<h2>{_sentence(rng)}</h2><p>{_prose(rng, 6)}</p><ul><li>{_sentence(rng)}</li>"
            f"<li><b>{_sentence(rng)}</b></li></ul><pre>{rng.choice(_NOUNS)} --check</pre>"
            f"<table><tr><th>part</th><th>count</th></tr>{rows}</table>"
        )
        length += len(sections[-1])
    return (
        f"<html><head><title>Page {number}</title><style>p {{ color: red }}</style></head><body>"
        f'<div id="breadcrumbs"><a href="#">Haul</a></div><div id="main-content">{"".join(sections)}</div>'
        f"<script>track({number})</script></body></html>"
    )


def _document(rng: random.Random, number: int, size: int) -> str:
    sections, length = [f"# Manual {number}"], 0
    while length < size:
        sections.append(f"## {_sentence(rng)}\n\n{_prose(rng, 8)}\n\n- {_sentence(rng)}\n- {_sentence(rng)}")
        length += len(sections[-1])
    return "\n\n".join(sections) + "\n"


def _sentence(rng: random.Random) -> str:
    words = rng.choice(_NOUNS), rng.choice(_VERBS), rng.choice(_NOUNS), rng.randint(2, 999), rng.choice(_ENDS)
    return "The {} {} the {} {} times {}.".format(*words)


def _prose(rng: random.Random, sentences: int) -> str:
    found = [_sentence(rng) for _ in range(sentences)]
    if rng.random() < 0.2:
        found.append(_secret(rng))
    return " ".join(found)


def _secret(rng: random.Random) -> str:
    first, last = _person(rng).lower().split()
    values = rng.randint(0, 10**6), first, last, rng.randint(0, 9999), rng.randint(1, 254)
    return rng.choice(_SECRETS).format(*values)


def _person(rng: random.Random) -> str:
    return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"


_SUFFIX = {"git": "jsonl", "jira": "json", "confluence": "html", "documents": "md"}
_MAKE = {"git": _git, "jira": _jira, "confluence": _confluence, "documents": _document}
