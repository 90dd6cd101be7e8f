"""What the routes of one app share, and how a route gets it: `Depends(services)`."""

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from alchemy.artifacts import Artifacts
from alchemy.catalog import Catalog
from alchemy.errors import BadInput, NotFound
from alchemy.settings import Settings
from serving.answers import AnswerRecord, Answers
from serving.caching.cache import CacheManager
from serving.coordinator import Coordinator
from serving.embeddings import Embeddings
from serving.feedback import Feedbacks
from serving.options import ServingOptions
from serving.people.access import Principal
from serving.people.people import People
from serving.rag.rag import Rag
from serving.released import Follower
from serving.routes.dagster_api import DagsterApi
from serving.state import State
from serving.watching.health import Health
from serving.watching.metrics import Metrics


@dataclass(frozen=True)
class Services:
    settings: Settings
    options: ServingOptions
    catalog: Catalog
    artifacts: Artifacts
    metrics: Metrics
    state: State
    people: People
    answers: Answers
    feedbacks: Feedbacks
    follower: Follower
    coordinator: Coordinator
    embeddings: Embeddings
    rag: Rag
    health: Health
    dagster: DagsterApi | None
    cache: CacheManager

    def checked_question(self, text: str, *, messages: int = 1) -> str:
        """The question, stripped. Raises BadInput when there is none or it is over the bounds."""
        text = text.strip()
        if not text:
            raise BadInput("there is no question: the last user message is empty")
        if len(text) > self.options.max_question_characters:
            raise BadInput(f"the question is over {self.options.max_question_characters} characters")
        if messages > self.options.max_messages:
            raise BadInput(f"more than {self.options.max_messages} messages")
        return text

    async def stored(self, answer_id: str, asker: Principal) -> AnswerRecord:
        """The answer of that id. Raises NotFound where there is none that the asker may read."""
        record = await self.answers.get(answer_id)
        if record is None or not record.readable_by(asker):
            raise NotFound(f"no answer {answer_id}; answers are kept for {self.options.answer_ttl_s} seconds")
        return record


async def services(connection: HTTPConnection) -> Services:
    """The services of a request's or WebSocket's app; a FastAPI dependency.

    Such are coroutines here: FastAPI takes a plain function to a thread, which costs more than most of them.
    """
    found: Services = connection.app.state.services
    return found
