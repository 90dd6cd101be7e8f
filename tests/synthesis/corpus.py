"""A small corpus of every kind of record, built by hand."""

from alchemy.records import Block, Chunk, Document, Insight, fingerprint


def document(
    kind: str,
    key: str,
    title: str,
    body: str,
    fields: dict[str, str] | None = None,
    source: str = "",
    section: str = "",
) -> Document:
    source = source or {"issue": "jira", "page": "confluence", "row": "database", "file": "documents"}.get(
        kind, "git"
    )
    text = f"{title}\n\n{body}"
    return Document(
        id=f"{source}:{key}",
        version="v",
        source=source,
        kind=kind,
        key=key,
        title=title,
        project="HAUL",
        text=text,
        blocks=(Block(0, len(text), "prose", section),),
        fields=fields or {},
        metrics={},
        url="",
        updated="",
        raw_key="raw",
        raw_sha256="0",
        locator="",
    )


def chunk(of: Document, start: int = 0, end: int | None = None, index: int = 0, section: str = "") -> Chunk:
    text = of.text[start:end]
    return Chunk(
        id=fingerprint(of.id, start, end),
        document_id=of.id,
        document_version=of.version,
        chunk_index=index,
        total_chunks=1,
        start=start,
        end=start + len(text),
        text=text,
        header=f"{of.source} | {of.project} | {of.key} | {of.title}",
        tokens=len(text) // 4,
        source=of.source,
        kind=of.kind,
        project=of.project,
        title=of.title,
        section=section,
        url="",
        raw_key="raw",
        raw_sha256="0",
        locator="",
    )


ISSUE = document(
    "issue",
    "HAUL-104",
    "Gateway reconnects for ever after a large batch",
    "A gateway that was offline sends one batch of 2,300 readings. The service closes the socket at 16 KiB.",
    {"status": "Resolved", "resolution": "Fixed", "priority": "Major", "components": "tollgate, edge"},
)
COMMIT = document(
    "commit",
    "e9ab47c3c0ee",
    "HAUL-104 Answer oversized payloads with HM-1042",
    "Closing the socket made the gateway resend the same message forever. It now drops the body.\n\n"
    "Files changed: tollgate/src/publish.rs, docs/errors.md.",
    {"issues": "HAUL-104", "date": "2025-12-02T09:12:00+00:00", "author": "<PERSON_0a1b2c3d>"},
)
PULL_REQUEST = document(
    "pull_request",
    "brinewell/haulmark#311",
    "HAUL-104 Answer oversized payloads",
    "Payloads above the limit are acknowledged and discarded by the service.",
    {"issues": "HAUL-104", "state": "merged"},
)
PAGE = document(
    "page",
    "65553",
    "Error codes",
    "Codes are stable and are never used again for something else.\n\n"
    "If a batch is too large, the gateway halves its size until it reaches 2 KiB.\n\n"
    "HM-1042 | Payload too large | no retry",
)
ROW = document("row", "items/3", "items: Pip 3C", "Category: tag.\n\nIn stock: 412.", {"category": "tag"})
CHINESE = document(
    "page", "65574", "温度标签校准规程", "每个标签每年校准一次。校准时把标签放入 0 ℃ 的冰水中三十分钟。"
)
DOCUMENTS = [ISSUE, COMMIT, PULL_REQUEST, PAGE, ROW, CHINESE]
CHUNKS = [chunk(of) for of in DOCUMENTS]
INSIGHTS = [
    Insight(
        ISSUE.id,
        ("more comments than 94 % of jira issues (23)", "fewer votes than 61 % of jira issues (0)"),
        0.8,
    )
]


def many(number: int) -> tuple[list[Document], list[Chunk], list[Insight]]:
    """Mostly commits, some issues and pages, a row: what sharing has to be fair about."""
    documents = []
    for index in range(number):
        kind = (
            "row"
            if index % 50 == 0
            else "page"
            if index % 10 == 0
            else "issue"
            if index % 5 == 0
            else "commit"
        )
        documents.append(
            document(
                kind,
                f"{kind}-{index}",
                f"Record {index} about part {index * 7}",
                f"Part {index * 7} of machine {index} was replaced. It has worked without fault since.",
                {"status": "Open"} if kind == "issue" else {},
            )
        )
    facts = [Insight(of.id, (f"more visits than 90 % of {of.kind}s (4)",), 0.5) for of in documents[::3]]
    return documents, [chunk(of) for of in documents], facts
