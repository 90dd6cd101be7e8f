"""litellm, which speaks to every provider of language models; imported once, whichever threads ask first."""

import os
import threading
import warnings
from typing import Any

_IMPORTING = threading.Lock()  # of two threads that import it at once, one sees half of it


def litellm() -> Any:
    """The module, set up. Blocks for seconds the first time, wherever it is called."""
    with _IMPORTING:
        # Without this, importing it fetches its price list from the network.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        # Of pydantic about litellm's own types, dozens of lines.
        warnings.filterwarnings("ignore", "Items? .* on TypedDict class", UserWarning)
        import litellm

        litellm.suppress_debug_info = True
        litellm.telemetry = False
        litellm.disable_aiohttp_transport = True  # httpx: its responses close at once when they are left
        litellm.disable_streaming_logging = True  # else a thread prices every call, for nobody
        return litellm
