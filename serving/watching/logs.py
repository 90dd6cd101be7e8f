"""Structured logs: one JSON object a line, with what was passed as `extra` and whose request it belongs to.

Question text never gets here unless ALCHEMY_SERVING_LOG_QUESTIONS says so. A disk that is full loses lines
and nothing else: they are counted, /readyz names it, and it ends with the first line that is written again.
"""

import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

# What a line is about. Threads get it where they are started with a copy of the request's context.
request_id: ContextVar[str] = ContextVar("request_id", default="")
answer_id: ContextVar[str] = ContextVar("answer_id", default="")

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Renders a record as one line: time, level, logger, message, ids, extras, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        ids = {"request": request_id.get(), "answer": answer_id.get()}
        row |= {name: value for name, value in ids.items() if value}
        row |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class Handler(logging.StreamHandler):
    """Writes to stderr, and counts the lines that it could not write."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self.problem: str | None = None  # why the last line was lost

    def emit(self, record: logging.LogRecord) -> None:
        lost = self.lost
        super().emit(record)
        if self.lost == lost:
            self.problem = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Called by `emit` while the exception is handled."""
        self.lost += 1
        self.problem = f"log lines cannot be written: {sys.exc_info()[1]}"


def handlers() -> Iterator[Handler]:
    """The handlers of this process that write its log; none where somebody else configured logging."""
    return (handler for handler in logging.getLogger().handlers if isinstance(handler, Handler))


def lines_lost() -> int:
    """Log lines that could not be written since the start."""
    return sum(handler.lost for handler in handlers())


def log_problem() -> str | None:
    """Why the log cannot be written now, as the last line found."""
    return next((handler.problem for handler in handlers() if handler.problem), None)


def log_config(level: str = "INFO") -> dict[str, Any]:
    """The `logging` configuration of the process, in uvicorn's form."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "serving.watching.logs.JsonFormatter"}},
        "handlers": {"stderr": {"class": "serving.watching.logs.Handler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "serving": {"level": level},
            "uvicorn": {"level": level},
            # One line per answer comes from the coordinator, with more in it.
            "uvicorn.access": {"level": "WARNING"},
        },
    }
