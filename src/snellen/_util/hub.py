"""Whether the Hugging Face Hub can be reached. Asked once, so that being offline costs no minute."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from snellen.errors import require

__all__ = ["check_hub"]


@lru_cache(maxsize=1)
def check_hub() -> bool:
    """Find out whether the Hub can be reached, and if not tell huggingface_hub, which would else try
    each file five times, half a minute long. Behind a proxy nothing is tried: it is taken as reachable.
    """
    constants: Any = require("huggingface_hub.constants", "local", "The Hugging Face Hub")
    require("huggingface_hub.utils.logging", "local", "The Hugging Face Hub").set_verbosity_error()
    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
        return False
    return True
