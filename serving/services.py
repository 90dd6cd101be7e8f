"""What the routes of one app share, and how a route gets it: `Depends(services)`."""

from dataclasses import dataclass

from fastapi import Request

from alchemy.artifacts import Artifacts
from alchemy.catalog import Catalog
from alchemy.errors import BadInput
from alchemy.settings import Settings
from serving.answers import Answers
from serving.cache import CacheManager
from serving.coordinator import Coordinator
from serving.metrics import Metrics
from serving.options import ServingOptions
from serving.released import Follower
from serving.state import State


@dataclass(frozen=True)
class Services:
    settings: Settings
    options: ServingOptions
    catalog: Catalog
    artifacts: Artifacts
    metrics: Metrics
    state: State
    answers: Answers
    follower: Follower
    coordinator: Coordinator
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


def services(request: Request) -> Services:
    """The app's services, as a FastAPI dependency."""
    found: Services = request.app.state.services
    return found
