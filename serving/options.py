"""Options of the service alone: deadlines, bounds and what may be switched off (ALCHEMY_SERVING_*).

What the service shares with the rest (store, host, port, API key, Redis) is in `alchemy.settings`.
"""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from alchemy.errors import BadConfig
from serving.people.addresses import Network

T = TypeVar("T", bound=BaseSettings)


def _comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


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

    resume_s: float = Field(
        5, ge=0, le=300, description="How long a streamed answer goes on without a reader, who may come back."
    )

    answer_ttl_s: int = Field(30 * 86400, ge=1, description="How long an answer and its lineage are kept.")
    feedback_export_s: float = Field(
        300,
        gt=0,
        description="Seconds between two exports of feedback to raw/; each starts a cycle.",
    )
    state_s: float = Field(0.5, gt=0, description="Deadline of one call to the Redis-protocol server.")

    store_s: float = Field(
        3, gt=0, description="Longest silence of the object store; then it is tried again later."
    )
    embed_s: float = Field(30, gt=0, description="Deadline of one call of /v1/embeddings.")

    stale_after_s: float = Field(
        7 * 86400, gt=0, description="Older raw data is named stale by /readyz; the service stays ready."
    )
    canary_s: float = Field(
        60, ge=0, description="Between two known questions that watch the search; 0: none are asked."
    )
    otlp_endpoint: str | None = Field(
        None, description="Base URL of an OTLP/HTTP collector for traces, e.g. http://collector:4318."
    )
    tls: bool = Field(False, description="Serve HTTPS; on port 8443 unless ALCHEMY_PORT says otherwise.")
    tls_certificate: Path | None = Field(None, description="PEM chain; default: a self-signed one is made.")
    tls_key: Path | None = Field(None, description="PEM key of the certificate, not encrypted.")

    dagster_url: str | None = Field(
        None, pattern=r"^https?://", description="Dagster's webserver, where admins start cycles."
    )
    socket_questions: int = Field(4, ge=1, le=64, description="Questions of one WebSocket that run at once.")
    socket_message_bytes: int = Field(64 << 10, ge=1024, description="Longest message of a WebSocket.")
    socket_messages_per_minute: int = Field(120, ge=1, description="More of one WebSocket are refused.")
    socket_login_s: float = Field(15, gt=0, description="Seconds between two looks whether its login holds.")
    socket_idle_s: float = Field(600, gt=0, description="A WebSocket is closed that asks nothing so long.")
    access_token_s: int = Field(900, ge=60, le=3600, description="Life of an access token.")
    refresh_token_s: int = Field(30 * 86400, ge=3600, description="Longest pause of a login.")
    requests_per_minute: int = Field(300, ge=1, description="Of one person.")
    program_requests_per_minute: int = Field(1200, ge=1, description="Of one program's key.")
    requests_at_once: int = Field(
        16, ge=1, description="Of one person or key, sockets among them; and answers in work."
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_comma_separated)] = Field(
        (), description="Networks, by commas, of proxies whose X-Forwarded-For tells the client's address."
    )
    session_ttl_s: int = Field(180 * 86400, ge=60, description="How long a silent conversation is kept.")
    session_messages: int = Field(400, ge=2, description="Last messages kept of one conversation.")
    sessions_each: int = Field(200, ge=1, description="Last conversations kept of one person.")
    audit_log: Path | None = Field(None, description="File of the audit log; default: in ALCHEMY_CACHE.")
    audit_bytes: int = Field(16 << 20, ge=1024, description="Size at which a new file is begun.")
    audit_files: int = Field(10, ge=1, description="Files kept besides the one that is written.")
    slow_anomalies: bool = Field(False, description="Leave unusual callers a quarter of their rate.")
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
    max_embedding_texts: int = Field(256, ge=1, description="Texts in one call of /v1/embeddings.")
    max_embedding_characters: int = Field(16_000, ge=1, description="Characters of one of them.")
    log_questions: bool = Field(False, description="Write question text to the log; off, it never is.")

    @model_validator(mode="after")
    def _a_certificate_has_its_key(self) -> "ServingOptions":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key come together")
        return self


def load_options() -> ServingOptions:
    """The process' serving options. Raises BadConfig naming every wrong variable, without its value."""
    return load(ServingOptions)


def load(kind: type[T]) -> T:
    """Options of that kind from the environment. Raises BadConfig like `load_options`."""
    prefix = kind.model_config["env_prefix"]
    aliases = {field.validation_alias for field in kind.model_fields.values()}
    try:
        return kind()
    except ValidationError as error:
        lines = []
        for item in error.errors(include_input=False):
            name = ".".join(map(str, item["loc"]))
            lines.append(f"{name if name in aliases else prefix + name.upper()}: {item['msg']}")
        raise BadConfig("wrong settings:\n  " + "\n  ".join(lines)) from None
