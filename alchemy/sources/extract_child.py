"""The child process of `extract`: reads one PDF or Office document after the other inside a memory limit.

Nothing heavy may be imported at the top of this module: the address space is limited and the start counts.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from alchemy.sources.refused import OVER_MEMORY, Refused


def main() -> None:
    """The child: answers requests until its input ends."""
    import resource

    limit = int(sys.argv[1]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not garble the answers
    # A process begins with its parent's peak, which says nothing of what it takes itself.
    answers.write(b"%d\n" % resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    answers.flush()
    for line in sys.stdin.buffer:
        answer = {**_answer(json.loads(line)), "full": _is_full()}
        answers.write(json.dumps(answer).encode("ascii") + b"\n")
        answers.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    path, limit = request["path"], request["max_bytes"]
    try:
        if request["kind"] == "pdf":
            from alchemy.sources.pdf import extract_pdf

            return {"found": extract_pdf(path, limit)}
        from alchemy.sources.office import extract_office

        return {"found": extract_office(path, limit)}
    except Refused as error:
        reason, detail = error.args
    except MemoryError:
        reason, detail = "memory_limit", OVER_MEMORY
    except Exception as error:
        reason, detail = "broken", f"The document could not be read: {type(error).__name__}."
    if reason == "broken" and _is_full():  # libxml2 calls a document damaged when it cannot allocate
        reason, detail = "memory_limit", OVER_MEMORY
    return {"refused": [reason, detail]}


def _is_full() -> bool:
    """Whether the address space once came close to the limit; False where /proc does not say."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmPeak")), "0")
    return int(peak) << 10 > 0.9 * limit


if __name__ == "__main__":
    main()
