"""Wakes the full cycle when raw objects change, in a folder or in S3. All decisions are in `plan`."""

from dagster import (
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from alchemy.listing import RAW, list_raw
from alchemy.records import SOURCES
from alchemy.store import Store
from resources.store import StoreResource
from sensors.plan import Seen, plan


def raw_sensor(name: str, sources: tuple[str, ...], description: str) -> SensorDefinition:
    """A sensor over some sources; an error of the store makes its tick red and moves nothing."""

    @sensor(
        name=name,
        job_name="full_cycle",
        minimum_interval_seconds=30,
        default_status=DefaultSensorStatus.RUNNING,
        description=description,
    )
    def raw_objects(context: SensorEvaluationContext, store: StoreResource) -> SensorResult:
        planned = plan({source: seen(store.store, source) for source in sources}, context.cursor)
        wanted = planned.request
        if wanted is None:
            return SensorResult(skip_reason=SkipReason("no raw object changed"), cursor=planned.cursor)
        tags = {"alchemy/changed": ",".join(wanted.sources)}
        return SensorResult([RunRequest(wanted.run_key, tags=tags)], cursor=planned.cursor)

    return raw_objects


def seen(store: Store, source: str) -> list[Seen]:
    """The objects of a source: by ETag on S3, by sha256 in a folder, whose etags change with every touch."""
    if store.local_path(RAW) is not None:
        return [Seen(one.key, one.size, one.sha256) for one in list_raw(store, source)]
    return [Seen(one.key, one.size, one.etag) for one in store.objects(f"{RAW}/{source}")]


sensors = [
    raw_sensor(
        "raw_objects",
        tuple(source for source in SOURCES if source != "feedback"),
        "Starts a full cycle when an object under raw/ appears, changes or goes.",
    ),
    raw_sensor("feedback", ("feedback",), "Starts a full cycle when people's feedback was exported as data."),
]
