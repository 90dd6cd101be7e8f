"""Runs assets with `dagster asset materialize` in a process of its own, as a user would by hand.

So `alchemy` needs no import of Dagster, and what people see is the command that they can repeat.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from alchemy.errors import AlchemyError

Say = Callable[[str], None]

LINE = "dagster_project.definitions"
_PROJECT = Path(__file__).parents[1] / "dagster_project"


def dagster_home() -> Path:
    """`DAGSTER_HOME`, else data/dagster, with the project's dagster.yaml where there is none yet."""
    home = Path(os.environ.get("DAGSTER_HOME") or "data/dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copyfile(_PROJECT / "dagster.yaml", home / "dagster.yaml")
    return home


def materialize(home: Path, select: str, environment: Mapping[str, str], say: Say) -> None:
    """Materializes a selection of assets; says its INFO lines and keeps the rest in `materialize.log`.

    Args:
        home: The DAGSTER_HOME.
        select: Dagster's selection, e.g. `*` or `group:quant`.
        environment: Variables in addition to those of this process.
        say: Takes each line that a person wants to see.

    Raises:
        AlchemyError: The run failed; the message ends with the last lines of its log.
    """
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", select, "-m", LINE]
    variables = "".join(f"{name}={value} " for name, value in environment.items())
    say(f"$ {variables}dagster asset materialize --select {shlex.quote(select)} -m {LINE}")
    log = home / "materialize.log"
    with (
        log.open("w") as kept,
        subprocess.Popen(
            command,
            env={**os.environ, **environment, "DAGSTER_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as run,
    ):
        assert run.stdout is not None
        for line in run.stdout:
            kept.write(line)
            shown = shown_line(line)
            if shown:
                say(shown)
    if run.returncode:
        tail = "\n".join(log.read_text().splitlines()[-40:])
        raise AlchemyError(f"the run failed; its last lines (all in {log}):\n{tail}")


def shown_line(line: str) -> str | None:
    """What a person wants to see of a line of Dagster's log: our INFO lines, and the end of every step."""
    parts = line.rstrip().split(" - ")
    if len(parts) < 5 or parts[1] != "dagster":
        return None
    if parts[2] == "INFO":
        return f"  {parts[-2]}: {parts[-1]}" if parts[-2] != parts[-1] else None
    if parts[2] in ("ERROR", "WARNING") or "STEP_SUCCESS" in parts:
        return f"  {parts[-1]}"
    return None
