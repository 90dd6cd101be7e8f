"""When the line runs by itself (agent S of the contract)."""

from dagster import DefaultScheduleStatus, ScheduleDefinition

from alchemy.settings import Settings


def build_schedules(settings: Settings) -> list[ScheduleDefinition]:
    """The full cycle by `ALCHEMY_CYCLE_CRON`, every night by default."""
    return [
        ScheduleDefinition(
            name="full_cycle_schedule",
            job_name="full_cycle",
            cron_schedule=settings.cycle_cron,
            default_status=DefaultScheduleStatus.RUNNING,
            description="Runs the whole line; what has not changed costs nothing.",
        )
    ]
