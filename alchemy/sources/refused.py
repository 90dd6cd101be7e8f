"""How an extractor says, inside the child process, that a document cannot be read. Imports nothing."""

OVER_MEMORY = "Extracting text took more memory than the limit."


class Refused(Exception):
    """A reason code and a sentence."""
