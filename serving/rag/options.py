"""Options of the RAG API: the contract's names, and ALCHEMY_RAG_* for what it does not name."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from alchemy.rag.vector_store import Strategy
from serving.options import load

SMALLEST_CHUNK, LARGEST_CHUNK = 32, 4096  # characters


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _sendable(key: SecretStr) -> SecretStr:
    text = key.get_secret_value().strip()
    if not text.isascii() or not text.isprintable():
        raise ValueError("has characters that no HTTP header may have")
    return SecretStr(text)


_Key = Annotated[SecretStr, AfterValidator(_sendable)]


class RagOptions(BaseSettings):
    # An empty variable is none: a ConfigMap may have all of them.
    model_config = SettingsConfigDict(
        env_prefix="ALCHEMY_RAG_", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    localai_url: str | None = Field(
        None,
        validation_alias="LOCALAI_URL",
        pattern=r"^https?://",
        description="A server that speaks OpenAI's protocol (LocalAI, Ollama, vLLM), with or without /v1: it "
        "embeds and answers. Default: the release's embedder, and model D or quotes.",
    )
    localai_api_key: _Key | None = None
    embedding_model: str | None = Field(
        None, validation_alias="EMBEDDING_MODEL", description="Its name at LOCALAI_URL, where it is needed."
    )
    llm_model: str | None = Field(
        None, validation_alias="LLM_MODEL", description="Its name at LOCALAI_URL, where it is needed."
    )
    qdrant_url: str | None = Field(
        None,
        validation_alias="QDRANT_URL",
        pattern=r"^(https?://|:memory:$)",
        description="Qdrant 1.16 or newer. Default: a folder in ALCHEMY_CACHE, in the dev profile alone.",
    )
    qdrant_api_key: _Key | None = None

    chunk_size: int = Field(
        512,
        validation_alias="CHUNK_SIZE",
        ge=SMALLEST_CHUNK,
        le=LARGEST_CHUNK,
        description="Characters of a chunk, at most; a request may say otherwise.",
    )
    chunk_overlap: int = Field(50, ge=0, description="Characters that two neighbors share, at most.")
    strategy: Annotated[Strategy, BeforeValidator(_lower)] = Field(
        "hybrid",
        validation_alias="EMBEDDING_STRATEGY",
        description="Vectors of a new collection: dense, sparse or hybrid. One that exists keeps its own.",
    )

    temperature: float = Field(0.2, ge=0, le=2, description="Of the language model.")
    max_tokens: int = Field(1024, ge=16, le=32_768, description="That it writes, at most.")

    ingest_s: float = Field(300, gt=0, description="Deadline of one document.")
    embed_s: float = Field(30, gt=0, description="Deadline of one call of LOCALAI_URL's embeddings.")
    search_s: float = Field(10, gt=0, description="Deadline of retrieval, and of one answer of Qdrant.")
    answer_s: float = Field(60, gt=0, description="Deadline of the language model; then quotes follow.")
    max_concurrent: int = Field(16, ge=1, description="Requests in work; one more is answered 503.")

    max_body_bytes: int = Field(8 << 20, ge=1024, description="Body of /ingest; the others are bounded more.")
    max_text_characters: int = Field(1_000_000, ge=1, description="Of one document.")
    max_chunks: int = Field(5000, ge=1, description="Of one document.")
    max_metadata_bytes: int = Field(16 << 10, ge=2, description="Of one document; every chunk carries it.")

    @model_validator(mode="after")
    def _a_server_has_its_models(self) -> "RagOptions":
        if self.localai_url and not (self.embedding_model and self.llm_model):
            raise ValueError("LOCALAI_URL needs EMBEDDING_MODEL and LLM_MODEL")
        if self.chunk_overlap >= self.chunk_size:
            raise ValueError("ALCHEMY_RAG_CHUNK_OVERLAP must be smaller than CHUNK_SIZE")
        return self

    @property
    def openai_url(self) -> str | None:
        """The base of the server's routes, which ends with /v1."""
        return f"{self.localai_url.rstrip('/').removesuffix('/v1')}/v1" if self.localai_url else None


def load_rag_options() -> RagOptions:
    """The process' options. Raises BadConfig naming every wrong variable, without its value."""
    return load(RagOptions)
