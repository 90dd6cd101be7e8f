"""What is asked, what is answered, and the events in between: the wire format of the service.

The first event is `Started`; the tokens, joined, are the answer's text; the last event is `Done` with the
whole answer, `Failed` or `Stopped`.
"""

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from alchemy.quoting import Citation
from alchemy.records import SOURCES
from alchemy.retrieval.conversation import Turn
from alchemy.retrieval.index import Filters as Limits
from alchemy.text.language import is_chinese
from serving.people.access import ANYONE, Principal

Stage = Literal["Rewriting", "Retrieving", "Consulting", "Fusing"]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class Filters(_Wire):
    """Where to look; an empty list means everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: list[Literal[SOURCES]] = Field(default_factory=list)  # type: ignore[valid-type]
    projects: list[Annotated[str, Field(max_length=200)]] = Field(default_factory=list, max_length=100)
    kinds: list[Annotated[str, Field(max_length=40)]] = Field(
        default_factory=list, max_length=20, description="commit, pull_request, issue, page, file, ..."
    )
    since: date | None = Field(None, description="First day of the document's last change.")
    until: date | None = Field(None, description="The first day that is too late.")

    @classmethod
    def of(cls, limits: Limits) -> "Filters":
        """What a search was limited to, as told to people: not what they may read."""
        given = {name: value for name in cls.model_fields if (value := getattr(limits, name))}
        return cls.model_validate(given)

    @property
    def limits(self) -> Limits:
        """The filters of a search; who may read what comes on top."""
        return Limits(
            tuple(self.sources),
            tuple(self.projects),
            tuple(self.kinds),
            self.since.isoformat() if self.since else "",
            self.until.isoformat() if self.until else "",
        )


class Question(_Wire):
    """One question as the coordinator takes it; bounds were checked at the edge."""

    text: str
    top_k: int | None = None  # None: as configured
    filters: Filters = Filters()
    intuition: bool = True
    adapter: str | None = None  # None: the general one
    asker: Principal = ANYONE
    session: str | None = None
    turns: tuple[Turn, ...] = ()  # what was said before, oldest first


class Intuition(_Wire):
    """What the fine-tuned model says from memory. Nobody checked it: never part of the answer's text."""

    text: str
    adapter: str
    verified: Literal[False] = False


class TextRange(_Wire):
    """Characters `start` to `end` of the answer's text."""

    start: int
    end: int


class Usage(_Wire):
    """Tokens of the question with its conversation, and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    counted_by: str  # a model's tokenizer, or "estimate"


class Answer(_Wire):
    """The finished answer, as returned and as stored."""

    id: str
    release: str | None
    created_at: str
    answer: str
    answerable: bool
    finalist: str  # who wrote it: extractive, none, or the model's name
    citations: list[Citation]
    unsupported: list[TextRange] = Field(
        default_factory=list, description="Sentences that no cited passage supports, by words and numbers."
    )
    removed: list[str] = Field(
        default_factory=list, description="Taken out of what the model wrote: secret, link, picture, html."
    )
    intuition: Intuition | None
    standalone: str | None = Field(None, description="The question as the conversation completed it.")
    session: str | None = None
    cached: Literal["exact", "semantic"] | None = Field(
        None, description="It was made before: for this question, or for one that means the same."
    )
    cached_question: str | None = Field(None, description="The question that it was made for.")
    degraded: list[str]  # features that were missing from this answer
    filters: Filters = Filters()  # what was searched: as was asked for, and as the question says
    dropped: Filters = Filters()  # what the question says but nothing answered under
    usage: Usage
    seconds: dict[str, float]


class Started(_Wire):
    """The first event: what the answer will be called, and the one release that it comes from."""

    event: Literal["started"] = "started"
    id: str
    release: str | None


class Status(_Wire):
    event: Literal["status"] = "status"
    stage: Stage
    state: Literal["start", "finish"]
    at: float  # seconds since the question arrived


class Source(_Wire):
    number: int
    document_id: str
    title: str
    source: str
    url: str
    score: float


class Sources(_Wire):
    """The passages that the finalist is given; citation [n] is the nth of them."""

    event: Literal["sources"] = "sources"
    sources: list[Source]


class Token(_Wire):
    event: Literal["token"] = "token"
    text: str


class Cited(_Wire):
    event: Literal["citation"] = "citation"
    citation: Citation


class Counted(_Wire):
    event: Literal["usage"] = "usage"
    usage: Usage


class Done(_Wire):
    event: Literal["done"] = "done"
    answer: Answer


class Failed(_Wire):
    """A fault of ours; there is no answer. A lost dependency is not one: that degrades the answer."""

    event: Literal["error"] = "error"
    id: str
    message: str


class Stopped(_Wire):
    """Somebody stopped the answer; there will be none."""

    event: Literal["stopped"] = "stopped"
    id: str


Event = Started | Status | Sources | Token | Cited | Counted | Done | Failed | Stopped


def refusal(question: str) -> str:
    """Said when the knowledge base holds no answer."""
    if is_chinese(question):
        return "知识库中没有这个问题的答案。"
    return "The answer is not in the knowledge base."


def no_release(question: str) -> str:
    """Said before the first release."""
    if is_chinese(question):
        return "知识库尚未发布任何版本，因此无法回答。"
    return "No knowledge base has been released yet, so there is nothing to answer from."


def no_retrieval(question: str) -> str:
    """Said when the search failed or took too long."""
    if is_chinese(question):
        return "暂时无法检索知识库，因此不作回答；请稍后再试。"
    return "The knowledge base cannot be searched right now, so there is no answer; please try again later."
