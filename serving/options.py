"""Options of the service alone: deadlines, bounds and what may be switched off (ALCHEMY_SERVING_*).

What the service shares with the rest (store, host, port, API key, Redis) is in `alchemy.settings`.
"""

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from alchemy.errors import BadConfig


class ServingOptions(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ALCHEMY_SERVING_", extra="ignore", frozen=True)

    release: str | None = Field(None, description="Serve this release only; default: follow the aliases.")
    follow_s: float = Field(1, gt=0, description="Seconds between two looks at the release aliases.")
    load_retry_s: float = Field(60, gt=0, description="Longest pause before a failed release is tried again.")
    threads: int = Field(4, ge=1, le=64, description="Searches that run at once.")
    max_concurrent: int = Field(64, ge=1, description="Questions in work; one more is answered 503.")

    search_s: float = Field(10, gt=0, description="Deadline of retrieval; after it the question is declined.")
    rewrite: bool = Field(
        False, description="Let the finalist's model, where there is one, put questions in other words first."
    )
    rewrite_s: float = Field(1.5, gt=0, description="Deadline of that; the search goes on without.")
    intuition: bool = Field(True, description="Ask the LoRA adapter at all.")
    intuition_tokens: int = Field(48, ge=1, le=512)
    intuition_grace_s: float = Field(4, ge=0, description="How long intuition may lag behind retrieval.")
    first_token_s: float = Field(20, gt=0, description="Longest wait for the finalist's first token.")
    stall_s: float = Field(10, gt=0, description="Longest silence between two of its tokens.")
    answer_tokens: int = Field(1024, ge=16, description="Most tokens the finalist writes.")

    answer_ttl_s: int = Field(30 * 86400, ge=1, description="How long an answer and its lineage are kept.")
    state_s: float = Field(0.5, gt=0, description="Deadline of one call to the Redis-protocol server.")

    cache: bool = Field(True, description="Answer from the cache, and keep answers in it.")
    cache_semantic: bool = Field(True, description="Also find what was asked in other words.")
    cache_similarity: float = Field(
        0.92, ge=0.5, lt=1, description="Cosine above which, and only above, two questions may be the same."
    )
    cache_ttl_s: int = Field(7 * 86400, ge=1, description="How long an answer is given again.")
    cache_refusal_ttl_s: int = Field(300, ge=1, description="How long a refusal is.")
    cache_entries: int = Field(10_000, ge=1, description="Most answers of one scope; the oldest go first.")
    cache_bytes: int = Field(256 << 20, ge=1024, description="Most bytes of all scopes; the oldest go first.")
    cache_shadow: float = Field(
        0.02, ge=0, le=1, description="Share of semantic hits that are answered anew, to measure false hits."
    )

    max_question_characters: int = Field(4000, ge=1)
    max_messages: int = Field(64, ge=1)
    max_body_bytes: int = Field(256 << 10, ge=1024)
    log_questions: bool = Field(False, description="Write question text to the log; off, it never is.")


def load_options() -> ServingOptions:
    """The process' serving options. Raises BadConfig naming every wrong variable, without its value."""
    try:
        return ServingOptions()
    except ValidationError as error:
        lines = [
            f"ALCHEMY_SERVING_{'.'.join(map(str, item['loc'])).upper()}: {item['msg']}"
            for item in error.errors(include_input=False)
        ]
        raise BadConfig("wrong settings:\n  " + "\n  ".join(lines)) from None
