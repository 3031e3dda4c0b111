"""What the tests of hosted models share."""

from __future__ import annotations

import json
import math

from snellen.testing import completion, fault


def weighing(**likely):
    """A completion that tells how likely these next tokens were."""
    top = [{"token": token, "logprob": math.log(p)} for token, p in likely.items()]
    data = completion("whatever")
    data["choices"][0]["logprobs"] = {"content": [{"top_logprobs": top}]}
    return data


FINE = json.dumps(completion("star"))


#: What another try mends, and how many tries the server sees; the rows of docs/reliability.md.
MENDED = {
    "408": (fault.status(408), 2),
    "409": (fault.status(409), 2),
    "429": (fault.status(429), 2),
    "429, Retry-After": (fault.status(429, retry_after=0.2), 2),
    "500": (fault.status(500), 2),
    "503": (fault.status(503, retry_after=0), 2),
    "529": (fault.status(529), 2),
    "reset before the answer": (fault.reset(), 2),
    "reset in the answer": (fault.reset(b'{"choices": [{"mess'), 2),
    "hang": (fault.hang(5), 2),
    "slow drip": (fault.drip(FINE, 0.05), 2),
    "truncated JSON": (fault.body(FINE[:50]), 2),
    "no JSON": (fault.body(b"<html>Bad gateway</html>", kind="text/html"), 2),
    "no object": (fault.body(b"[]"), 2),
    "empty body": (fault.body(b""), 2),
    "no UTF-8": (fault.body(b"\xff\xfe{"), 2),
    "no choices": (fault.body({"choices": []}), 2),
    "an error with status 200": (fault.body({"error": {"message": "overloaded", "code": 503}}), 2),
    "an end that nobody knows": (fault.body(completion("sta", finish="abort")), 2),
    "an error within a choice": (
        fault.body({"choices": [{"error": {"code": 502, "message": "x"}, "message": {"content": ""}}]}),
        2,
    ),
    "a code in a text": (fault.body({"code": "InternalError", "message": "x"}), 2),
    "another content type": (fault.body(FINE, kind="text/plain"), 1),
}
