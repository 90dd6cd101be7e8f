"""The answer cache for those who run the service: what it holds for their tenant, and emptying it."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from alchemy.errors import Unavailable
from serving.people.access import Admin
from serving.services import Services, services

router = APIRouter(prefix="/api/cache", tags=["cache"])

Found = Annotated[Services, Depends(services)]


class FalseHits(BaseModel):
    """Semantic hits that a fresh answer contradicted, as a share of those checked."""

    rate: float
    low: float = Field(description="Lower bound of the 95 % interval (Wilson).")
    high: float


class CacheReport(BaseModel):
    """What the cache holds for the tenant, and what this process measured since it started."""

    entries: int | None = Field(description="Answers of the tenant; null while the state server is away.")
    bytes: int | None
    scopes: int | None = Field(description="Releases, access sets and parameters they are parted by.")
    hits: dict[str, int] = Field(description="By tier, of all tenants, in this process.")
    misses: int
    checks: int = Field(description="Semantic hits that were answered anew.")
    false_hits: FalseHits | None = Field(description="null before the first check.")
    problem: str | None


class Dropped(BaseModel):
    dropped: int


@router.get("")
async def report(found: Found, admin: Admin) -> CacheReport:
    """The tenant's entries, hits by tier and the measured rate of false hits."""
    cache = found.cache
    try:
        figures = await cache.figures(admin.tenant)
    except Unavailable:
        figures = None  # `problem` says it
    rate = cache.false_hits
    return CacheReport(
        entries=figures and figures.entries,
        bytes=figures and figures.bytes,
        scopes=figures and figures.scopes,
        hits=cache.hits,
        misses=cache.misses,
        checks=cache.checks,
        false_hits=FalseHits(rate=rate[0], low=rate[1], high=rate[2]) if rate else None,
        problem=cache.problem,
    )


@router.delete("")
async def clear(found: Found, admin: Admin, release: str | None = None) -> Dropped:
    """Drops the tenant's entries, or those of one release."""
    return Dropped(dropped=await found.cache.clear(tenant=admin.tenant, release=release))


@router.delete("/documents/{document_id:path}")
async def forget(found: Found, admin: Admin, document_id: str) -> Dropped:
    """Drops the tenant's entries that cite a document."""
    return Dropped(dropped=await found.cache.forget(document_id, tenant=admin.tenant))
