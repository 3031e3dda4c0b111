"""Check once whether the Hugging Face Hub can be reached, so that working offline costs no minute."""

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
    """Check whether the Hub can be reached; if not, put huggingface_hub into offline mode, since it would
    retry each file five times, for half a minute. Behind a proxy the Hub is taken as reachable, without a
    check.
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
