"""`POST /v1/embeddings`, OpenAI-compatible: vectors of the one embedder that the search uses.

Texts are embedded as questions are, so a vector compares with other vectors from here. The tokens of another
model's tokenizer mean nothing to ours: an input of numbers is refused.
"""

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from alchemy.errors import BadInput, Unavailable
from serving.errors import error_response
from serving.released import Floats
from serving.routes.openai_api import BOUNDED, EMBEDDING_MODEL
from serving.services import Services, services
from serving.streams import unless_gone
from serving.usage import usage
from serving.watching.tracing import note

router = APIRouter(prefix="/v1", tags=["openai"])


class EmbeddingRequest(BaseModel):
    model_config = BOUNDED

    model: str = EMBEDDING_MODEL
    input: str | list[str] | list[int] | list[list[int]] = Field(
        description="One text, or up to ALCHEMY_SERVING_MAX_EMBEDDING_TEXTS of them; no token numbers."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: of little-endian 32-bit floats, as the `openai` client asks for."
    )
    dimensions: int | None = Field(None, ge=1, description="Refused unless it is the embedder's own.")


@router.post("/embeddings", response_model=None)
async def embeddings(
    body: EmbeddingRequest, request: Request, found: Annotated[Services, Depends(services)]
) -> dict[str, Any] | JSONResponse:
    """Embeds texts with the embedder of the release that serves."""
    if body.model != EMBEDDING_MODEL:
        message = f"model {body.model!r} embeds nothing; {EMBEDDING_MODEL!r} does"
        return error_response(404, message, "model_not_found", param="model")
    texts = _texts(body, found)
    lease = found.follower.lease()
    if lease is None:
        raise Unavailable("no release is loaded yet; see /readyz")
    with lease:
        live = lease.live
        note(
            {
                "gen_ai.operation.name": "embeddings",
                "gen_ai.request.model": body.model,
                "gen_ai.response.model": live.release.embedder,
            }
        )
        vectors = await unless_gone(request, found.embeddings.embed(lease, texts))
        if body.dimensions not in (None, vectors.shape[1]):
            message = f"dimensions must be {vectors.shape[1]}: the embedder's vectors are not shortened"
            return error_response(422, message, "invalid_value", param="dimensions")
        counted = usage("\n".join(texts), "", live)
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    tokens = counted.prompt_tokens
    return {
        "object": "list",
        "model": body.model,
        "release": live.id,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "counted_by": counted.counted_by},
    }


def _texts(body: EmbeddingRequest, found: Services) -> list[str]:
    """The texts. Raises BadInput for tokens and for what is over the bounds."""
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = [text for text in given if isinstance(text, str)]
    most, longest = found.options.max_embedding_texts, found.options.max_embedding_characters
    if len(texts) < len(given):
        raise BadInput("input: numbers are tokens of another model; send the texts themselves")
    if not 0 < len(texts) <= most:
        raise BadInput(f"input: from 1 to {most} texts, not {len(texts)}")
    for number, text in enumerate(texts):
        if not text.strip() or len(text) > longest:
            raise BadInput(f"input.{number}: a text of 1 to {longest} characters, not {len(text)}")
    return texts


def _encoded(vector: Floats, encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    values: list[float] = vector.tolist()
    return values
