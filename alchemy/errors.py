"""The few kinds of failure that callers tell apart.

Bad *data* is not an error: readers turn it into `Rejected` rows (see `records`). An exception means that
a person or a calling program has to act: the message says what was wrong, where, and what to do.
"""


class AlchemyError(Exception):
    """Base of every error that this project raises on purpose."""


class BadInput(AlchemyError):
    """A request or a file cannot be used as it is; trying again will not help."""


class BadConfig(AlchemyError):
    """Settings or `models.yaml` are wrong; start-up stops with the names of what to mend."""


class NotFound(AlchemyError):
    """A key, artifact or release that was asked for does not exist."""


class Conflict(AlchemyError):
    """A conditional write lost: somebody else created or moved the same key first."""


class Unavailable(AlchemyError):
    """A dependency (store, model endpoint, Redis) does not answer; trying again may help.

    Args:
        message: What does not answer, and what to do.
        retry_after_s: When trying again may help, where that can be told.
    """

    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ContractBroken(AlchemyError):
    """An invariant of our own does not hold (digest, schema, conservation); a bug or corruption."""
