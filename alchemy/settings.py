"""Settings from the environment and `.env`, parsed once and validated with readable messages.

Nested options are set with two underscores: `ALCHEMY_CHUNK__TARGET_TOKENS=160`. What models to use is
not here but in `models.yaml` (see `catalog`).
"""

import ipaddress
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dotenv import load_dotenv
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from alchemy.errors import BadConfig

_JWT_SECRET_BYTES = 32  # of HS256's own length (RFC 7518, 3.2)
_HISTORY_KEY = re.compile(r"[0-9a-fA-F]{64}")


class Options(BaseModel):
    """Options that change a result; their JSON is part of an artifact's request."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CleanOptions(Options):
    min_characters: int = Field(20, ge=0, description="Documents with fewer letters and digits are filtered.")
    street_addresses: bool = Field(False, description="Mask street addresses too; these rules also err.")
    near_duplicate_jaccard: float = Field(
        0.9, ge=0, le=1, description="Texts at least this alike are near duplicates; 0 turns it off."
    )
    boilerplate_share: float = Field(
        0.9, ge=0, le=1, description="Pages and files of at least so much boilerplate are filtered; 0: none."
    )
    max_document_bytes: int = Field(64 << 20, gt=0, description="Binary documents over this are quarantined.")
    extract_seconds: float = Field(60.0, gt=0, description="Time limit of one PDF or Office extraction.")
    extract_memory_mb: int = Field(2048, ge=256, description="Memory limit of one PDF or Office extraction.")
    part_bytes: int = Field(
        64 << 10,
        ge=1,
        description="Raw bytes behind one part file, about; more in a corpus over 1,000 parts.",
    )


class ChunkOptions(Options):
    target_tokens: int = Field(128, ge=32, le=4096, description="Tokens a chunk aims for (embedder's own).")
    overlap_tokens: int = Field(
        32, ge=0, description="Tokens of whole sentences repeated from the chunk before."
    )

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> "ChunkOptions":
        if self.overlap_tokens * 2 > self.target_tokens:
            raise ValueError("overlap_tokens must be at most half of target_tokens")
        return self


class QuantOptions(Options):
    max_base_columns: int = Field(256, ge=1, description="More numeric columns than this are refused.")
    memory_mb: int = Field(512, ge=64, description="Working memory for products and correlations.")
    max_correlation: float = Field(0.95, gt=0, le=1, description="A column at or over this |r| is redundant.")
    min_variance_share: float = Field(
        0.002,
        ge=0,
        lt=1,
        description="A column whose most common value covers more than 1 - this is dropped.",
    )
    logs: bool = Field(False, description="Consider the logarithm of each column as a feature too.")
    ratios: bool = Field(False, description="Consider a/b of each two columns too; null where b is zero.")


class KindShares(Options):
    """How questions are spread over kinds; only the proportions count."""

    fact: float = Field(0.4, gt=0)
    how: float = Field(0.25, ge=0, description="Ways and reasons.")
    comparison: float = Field(0.1, ge=0)
    numeric: float = Field(0.15, ge=0, description="From the measured facts of a document.")
    unanswerable: float = Field(0.1, ge=0, description="Asked of what is not there, and declined.")


class SynthesisOptions(Options):
    provider: Literal["auto", "llm", "template"] = Field(
        "auto", description="Who writes pairs; auto: as model_a of models.yaml says."
    )
    max_samples: int = Field(2000, ge=1, description="Most pairs to write.")
    pairs_per_chunk: int = Field(3, ge=1, le=10)
    kinds: KindShares = KindShares()
    eval_share: float = Field(0.05, gt=0, lt=0.5)
    holdout_share: float = Field(0.1, gt=0, lt=0.5)
    near_question_jaccard: float = Field(
        0.85, gt=0, le=1, description="Questions at least this alike are asked once."
    )
    judge: bool = Field(False, description="Model A judges every pair beside its source; needs its key.")
    budget_usd: float = Field(1.0, ge=0, description="Spending cap of one run with a paid provider.")
    threads: int = Field(8, ge=1, le=64)


class SearchOptions(Options):
    candidates: int = Field(50, ge=1, le=1000, description="Passages taken from each of dense and lexical.")
    rerank: int = Field(20, ge=0, le=200, description="Fused passages that the cross-encoder scores.")
    top_k: int = Field(5, ge=1, le=50)
    infer_filters: bool = Field(True, description='Understand "PRs since March" as a filter; a soft one.')
    quant_weight: float = Field(0.3, ge=0, le=1, description="Share of the quant score (contract: 0.3).")


class VectorOptions(BaseModel):
    """Where the vectors of an index are searched. Results are those of FAISS, up to its and their recall."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["faiss", "qdrant", "weaviate"] = "faiss"
    url: str | None = Field(None, description="Of the vector database, e.g. http://qdrant:6333.")
    grpc_port: int = Field(50051, ge=1, le=65535, description="Weaviate's second port.")
    api_key: SecretStr | None = None
    timeout_s: float = Field(30, ge=1, le=600, description="For one answer of the database.")

    @model_validator(mode="after")
    def _a_database_has_an_address(self) -> "VectorOptions":
        if self.backend != "faiss" and not self.url:
            raise ValueError(f"backend {self.backend} needs a url")
        return self


class TrainOptions(Options):
    max_tokens: int = Field(20_000, ge=100, description="Training tokens of one run, all epochs together.")
    max_length: int = Field(
        320, ge=32, le=8192, description="Longest pair in tokens; longer ones are left out."
    )
    epochs: int = Field(3, ge=1, le=100)
    learning_rate: float = Field(1e-3, gt=0)
    batch_tokens: int = Field(512, ge=32, description="Tokens of one optimizer step (gradient accumulation).")
    pretraining_tokens: int = Field(
        0, ge=0, description="Tokens of the corpus' plain text to train on before the pairs."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again instead of keeping them: less memory, a third slower."
    )
    four_bit: bool = Field(False, description="QLoRA: the base in 4 bits; needs a GPU and bitsandbytes.")
    seed: int = 17
    checkpoint_seconds: float = Field(
        60,
        ge=0,
        le=3600,
        description="Time between checkpoints, which a killed run goes on from; 0: every step.",
    )

    @property
    def deciding(self) -> dict[str, Any]:
        """The options that change a result, and not merely its cost or where it could be resumed from."""
        return self.model_dump(exclude={"checkpoint_seconds", "gradient_checkpointing"})


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="ALCHEMY_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    profile: Literal["dev", "production"] = "dev"
    store: str = Field("", description="Folder or s3://bucket; default ./data, or s3://$S3_BUCKET when set.")
    s3_endpoint: str | None = Field(None, validation_alias="S3_ENDPOINT")
    s3_bucket: str | None = Field(None, validation_alias="S3_BUCKET")
    models: Path = Field(Path("data/models"), description="Folder of model weights.")
    cache: Path = Field(Path("data/cache"), description="Local copies of remote artifacts, and other caches.")
    catalog: Path = Field(Path("models.yaml"), description="Path of models.yaml.")
    gate: Path = Field(
        Path("gate.toml"), description="The gate's policy; without the file its built-in numbers hold."
    )
    salt: SecretStr | None = Field(None, description="Secret key of the pseudonyms; required in production.")
    auth: Literal["open", "required"] | None = Field(
        None,
        description="Whether the service asks who is there; default: open in the dev profile on a loopback "
        "address where neither ALCHEMY_API_KEY nor ALCHEMY_JWT_SECRET is set, else required.",
    )
    api_key: SecretStr | None = Field(None, description="The operator's bearer key; required in production.")
    jwt_secret: SecretStr | None = Field(
        None, description="Signs login tokens, 32 bytes or more; required in production."
    )
    history_key: SecretStr | None = Field(
        None,
        description="Encrypts conversations and answers at rest: keys of 64 hexadecimal digits, by commas; "
        "the first encrypts, all decrypt.",
    )
    redis_url: str | None = Field(None, validation_alias="REDIS_URL", description="Required in production.")
    engine: Literal["auto", "python", "spark"] = "auto"
    spark_master: str = Field("local[*]", validation_alias="SPARK_MASTER")
    spark_min_bytes: int = Field(100_000_000, ge=0, description="Raw bytes from which auto picks Spark.")
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    cycle_cron: str = Field("0 2 * * *", description="Schedule of the full cycle.")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    clean: CleanOptions = CleanOptions()
    chunk: ChunkOptions = ChunkOptions()
    quant: QuantOptions = QuantOptions()
    synthesis: SynthesisOptions = SynthesisOptions()
    search: SearchOptions = SearchOptions()
    vectors: VectorOptions = VectorOptions()
    train: TrainOptions = TrainOptions()

    @model_validator(mode="after")
    def _production_has_its_secrets(self) -> "Settings":
        if self.profile == "production":
            needed = {
                "ALCHEMY_SALT": self.salt,
                "ALCHEMY_API_KEY": self.api_key,
                "ALCHEMY_JWT_SECRET": self.jwt_secret,
                "REDIS_URL": self.redis_url,
            }
            missing = [name for name, value in needed.items() if not value]
            if missing:
                raise ValueError(f"profile production needs {', '.join(missing)}")
            if self.auth == "open":
                raise ValueError("profile production refuses ALCHEMY_AUTH=open")
        return self

    @model_validator(mode="after")
    def _keys_are_long_enough(self) -> "Settings":
        secret = self.jwt_secret
        if secret and len(secret.get_secret_value().encode()) < _JWT_SECRET_BYTES:
            raise ValueError(f"ALCHEMY_JWT_SECRET is shorter than {_JWT_SECRET_BYTES} bytes")
        if not all(_HISTORY_KEY.fullmatch(key) for key in self.history_keys):
            raise ValueError("ALCHEMY_HISTORY_KEY: every key is 64 hexadecimal digits (openssl rand -hex 32)")
        return self

    @property
    def login(self) -> Literal["open", "required"]:
        """Whether the service asks who is there."""
        if self.auth:
            return self.auth
        guarded = self.profile == "production" or self.api_key or self.jwt_secret
        return "required" if guarded or not _is_loopback(self.host) else "open"

    @property
    def history_keys(self) -> tuple[str, ...]:
        """The keys of history at rest, in hexadecimal; the first encrypts. Empty: it is not encrypted."""
        keys = self.history_key.get_secret_value() if self.history_key else ""
        return tuple(key.strip() for key in keys.split(",") if key.strip())

    @property
    def store_url(self) -> str:
        return self.store or (f"s3://{self.s3_bucket}" if self.s3_bucket else "data")

    @property
    def pseudonym_salt(self) -> bytes:
        """The key of the pseudonyms. In the dev profile alone there is a fixed one, so that runs agree."""
        return self.salt.get_secret_value().encode() if self.salt else b"dev profile, not secret"


@cache
def load_settings() -> Settings:
    """The process' settings. Raises BadConfig naming every wrong variable, without its value."""
    load_dotenv()  # into the environment, because AWS_* and the variables of models.yaml are read from there
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: {item['msg']}"
            for item in error.errors(include_input=False)
        ]
        raise BadConfig("wrong settings:\n  " + "\n  ".join(lines)) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
