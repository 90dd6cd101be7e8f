"""The words of template pairs: how people ask, and how a record is named in a question.

Which phrasing a question gets is a hash of the record, so equal corpora give equal questions.
"""

from collections.abc import Sequence
from typing import TypeVar

from alchemy.records import Document, fingerprint

T = TypeVar("T")

# {name}: the record in words; {section}, {field}, {subject}, {other}, {condition}: what is asked about.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "issue": (
        "What is {key} about?",
        "Can you summarize {key} for me?",
        "What problem does {key} describe?",
        'What do we know about "{title}" ({key})?',
        "Somebody mentioned {key}. What is the issue there?",
    ),
    "issue_by_title": (
        'Is there an issue about "{title}"?',
        'Do we have a ticket for "{title}"?',
        'Which issue covers "{title}"?',
    ),
    "discussion": (
        "What was said in the discussion of {key}?",
        'What did people comment on {key}, "{title}"?',
        "Is there any follow-up in {key}?",
    ),
    "status": (
        "What is the status of {key}?",
        "Has {key} been resolved?",
        "How did {key} end?",
        'Is "{title}" ({key}) still open?',
    ),
    "commit": (
        'What does the commit "{title}" change?',
        'Can you explain the commit "{title}"?',
        'What was done in "{title}"?',
        'Why was "{title}" committed?',
    ),
    "files": (
        'Which files does the commit "{title}" touch?',
        'Where in the code was "{title}" changed?',
        'What files were modified by "{title}"?',
    ),
    "issue_of_change": (
        "Which issue does {name} belong to?",
        "What ticket is behind {name}?",
        "{name_capital}: which issue key is it for?",
    ),
    "pull_request": (
        'What does the pull request "{title}" do?',
        "Can you summarize pull request {key}?",
        'What changes with "{title}"?',
        'What is the point of the pull request "{title}"?',
    ),
    "state": (
        'Was the pull request "{title}" merged?',
        "What happened to pull request {key}?",
        'Is "{title}" merged yet?',
    ),
    "section": (
        'What does "{title}" say about {section}?',
        'What do I need to know about {section} in "{title}"?',
        'Can you explain {section} ("{title}")?',
        'I am reading about "{title}". What about {section}?',
    ),
    "page": (
        'What does "{title}" cover?',
        'What is "{title}" about?',
        'Can you summarize "{title}"?',
        'What does our documentation say about "{title}"?',
    ),
    "page_number": (
        'What is on page {number} of "{title}"?',
        'What does "{title}" say on page {number}?',
    ),
    "row": (
        "What do we have on record for {name}?",
        "What is known about {name}?",
        "Can you look up {name}?",
    ),
    "feedback": (
        'What feedback was given on "{title}"?',
        'How did people react to the answer about "{title}"?',
    ),
    "field": (
        "What is the {field} of {name}?",
        "Which {field} does {name} have?",
        "Can you tell me the {field} of {name}?",
    ),
    "fields": (
        "What are the {field} of {name}?",
        "Which {field} does {name} have?",
        "Can you list the {field} of {name}?",
    ),
    "date": (
        "When was {name} {verb}?",
        "On which day was {name} {verb}?",
        "Do you know when {name} was {verb}?",
    ),
    "why": (
        'Why was "{title}" needed?',
        'What was the reason for "{title}"?',
        'What is the background of "{title}"?',
    ),
    "tested": (
        'How was "{title}" tested?',
        'What testing was done for "{title}"?',
    ),
    "expected": (
        "What is the expected behavior in {name}?",
        "What should happen according to {name}?",
    ),
    "condition": (
        "What happens {condition}?",
        "What should I expect {condition}?",
    ),
    "definition": (
        "What is {subject}?",
        "Can you explain what {subject} is?",
        "What does {subject} mean here?",
    ),
    "table_row": (
        'What does the table in "{title}" say about {subject}?',
        'What is listed for {subject} in "{title}"?',
        '{subject}: what does "{title}" list for it?',
    ),
    "comparison": (
        'How do {subject} and {other} differ in "{title}"?',
        'Can you compare {subject} with {other} ("{title}")?',
        '{subject} or {other}: what is the difference according to "{title}"?',
    ),
    "numeric": (
        "How does {name} compare with other {kinds}?",
        "Do the numbers of {name} stand out?",
        "Is {name} unusual among {kinds}?",
    ),
    "unanswerable": (
        "What is the {field} of {name}?",
        "Can you tell me the {field} of {name}?",
        "Which {field} was recorded for {name}?",
    ),
}

CHINESE: dict[str, tuple[str, ...]] = {
    "issue": ("{key}是关于什么的？", "请概括一下{key}（{title}）。", "{key}描述了什么问题？"),
    "page": ("《{title}》讲的是什么？", "请概括一下《{title}》。", "关于“{title}”，文档里怎么说？"),
    "comparison": (
        "《{title}》中{subject}和{other}有什么区别？",
        "请比较一下{subject}和{other}（《{title}》）。",
    ),
    "unanswerable": ("{name}的{field}是什么？", "{name}中记录的{field}是多少？"),
    "section": ("《{title}》中关于“{section}”是怎么规定的？", "“{section}”具体是什么情况？（《{title}》）"),
}

# Headings that have a better question than "what does it say about ...".
SECTIONS = {
    "why": "why",
    "motivation": "why",
    "background": "why",
    "root cause": "why",
    "how tested": "tested",
    "testing": "tested",
    "test plan": "tested",
    "expected": "expected",
    "expected behavior": "expected",
    "expected behaviour": "expected",
}
# Fields that hold a date, and what happened on it.
DATES = {
    "created": "created",
    "created_at": "opened",
    "resolved": "resolved",
    "merged_at": "merged",
    "date": "written",
}
# What no export of these systems holds; asked where neither the fields nor the text have it.
ABSENT_FIELDS = (
    "budget",
    "contract number",
    "customer satisfaction score",
    "legal reviewer",
    "purchase order",
    "invoice number",
    "insurance policy",
    "sales region",
)
DECLINES = (
    "{name_capital} does not say. No {field} is recorded there.",
    "There is no {field} in {name}, so I cannot tell from what we have.",
    "That is not recorded: {name} has no {field}.",
)
CHINESE_ABSENT = ("预算", "合同编号", "客户满意度", "采购单", "发票号码", "保险单", "销售区域")
CHINESE_DECLINES = ("{name}中没有记录{field}。", "没有查到：{name}没有提到{field}。")
KINDS = {
    "issue": "issues",
    "commit": "commits",
    "pull_request": "pull requests",
    "page": "pages",
    "file": "documents",
    "row": "records",
    "feedback": "feedback records",
}


def choose(options: Sequence[T], *key: object) -> T:
    """One of `options`, always the same for the same key."""
    return options[int(fingerprint(*key, length=12), 16) % len(options)]


def record_name(document: Document) -> str:
    """The record as people call it inside a sentence."""
    title = document.title.strip().rstrip(".") or document.key
    if document.kind == "issue":
        return document.key
    if document.kind == "commit":
        return f'the commit "{title}"'
    if document.kind == "pull_request":
        return f'the pull request "{title}"'
    if document.kind == "row":
        table, found, label = title.partition(": ")
        return f"{label} ({table})" if found else title
    return f'"{title}"'


def ask(template: str, document: Document, *key: object, chinese: bool = False, **words: str) -> str:
    """A question of one template family about a document."""
    family = CHINESE.get(template) if chinese else None
    name = record_name(document)
    known = {
        "key": document.key,
        "title": document.title.strip().rstrip(".") or document.key,
        "name": name,
        "kinds": KINDS.get(document.kind, "records"),
    } | words
    known["name_capital"] = known["name"][:1].upper() + known["name"][1:]
    return choose(family or QUESTIONS[template], template, document.id, *key).format(**known)
