"""What an error of a server means: a table of status, code and words. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from snellen.models.remote.retry import RequestError

__all__ = ["TABLE", "Action", "Filtered", "Rule", "error_in", "fault"]


class Action(Enum):
    """What to do about an error."""

    RETRY = "try again"
    WAIT = "wait until the server is back"
    REFUSED = "the outcome is `refused`: a filter did not let the request through"
    REJECT = "the outcome is `error`: the same request would fail again"
    STOP = "the run stops: all requests would fail"
    STOP_FIRST = "the run stops if nothing has been answered yet; else the outcome is `error`"


class Filtered(RequestError):
    """The request was blocked by a content filter before it reached the model."""


class Rule(NamedTuple):
    """A row of the table. It applies if the status, the code or the words fit.

    Args:
        name: what it is about.
        action: what to do.
        statuses: HTTP statuses, or codes of that kind in a body.
        codes: a pattern for the error's code, type or status in words, without case and separators.
        words: a pattern for the message, for statuses in ``within`` (all if it is empty).
        status: of errors that have none.
        advice: one sentence for the reader.
    """

    name: str
    action: Action
    statuses: frozenset[int] = frozenset()
    codes: str = ""
    words: str = ""
    within: frozenset[int] = frozenset()
    status: int | None = None
    advice: str = ""


#: The most characters of a message to look at.
LONGEST = 4000
_MONEY = "The account has no credit or quota left. Add some, then go on: snellen resume"

#: The first rule that fits counts. Codes of OpenAI, Azure, Anthropic, Gemini, OpenRouter, DeepSeek, DashScope
#: and vLLM, from their documentation (November 2026).
TABLE = [
    Rule(
        "filter",
        Action.REFUSED,
        codes="contentfilter(ed)?|contentpolicyviolation|moderationblocked|datainspectionfailed|flaggedinput"
        "|responsibleaipolicyviolation|promptblocked|sensitivewords?detected",
        words=r"moderation|flagged|content (management )?policy|safety (system|filter)",
        within=frozenset({400, 403, 451}),
        status=400,
    ),
    # OpenAI's sentence about the quota is also Gemini's for a limit per minute: only the code tells.
    Rule(
        "money",
        Action.STOP,
        frozenset({402}),
        "insufficient(quota|balance|credits?|funds)|billing(error|hardlimitreached|notactive)|arrearage"
        "|accountoverdue|paymentrequired",
        r"insufficient (balance|credit|fund)|credit balance is too low|out of credits",
        status=402,
        advice=_MONEY,
    ),
    Rule(
        "key",
        Action.STOP_FIRST,
        frozenset({401, 403}),
        "invalidapikey|apikeyinvalid|incorrectapikey|authenticationerror|unauthenticated|unauthorized"
        "|permissiondenied|permissionerror|invalidauthentication|accessdenied",
        r"api key not valid|invalid api key",
        status=401,
    ),
    Rule(
        "model",
        Action.STOP_FIRST,
        frozenset({404}),
        "modelnotfound|notfounderror|deploymentnotfound|notfound|modelnotexist",
        status=404,
    ),
    Rule(
        "too large",
        Action.REJECT,
        frozenset({413}),
        "contextlengthexceeded|requesttoolarge|stringabovemaxlength",
        r"maximum context length|request entity too large|image .{0,40}(too large|exceeds)",
        frozenset({400, 413, 422}),
        advice="Shrink images with -M max_side=1024.",
    ),
    Rule(
        "limit",
        Action.RETRY,
        frozenset({429}),
        "ratelimit.*|throttling.*|resourceexhausted|toomanyrequests|requestlimitexceeded|.*ratequota",
        status=429,
    ),
    Rule(
        "away",
        Action.WAIT,
        frozenset({502, 503, 504, 520, 521, 522, 523, 524, 529}),
        "(engine|system|server)?overloaded(error)?|(service)?unavailable|serverbusy|modelloading",
        status=503,
    ),
    Rule(
        "failure",
        Action.RETRY,
        frozenset({408, 409, 425, *range(500, 600)}),
        "servererror|internal(server)?error|internal|apierror|timeout(error)?|upstreamerror|requesttimeout",
        r"overload|busy|try again|retry|timed? ?out|temporar|unavailable|capacity|interrupted",
        frozenset({0}),
    ),
    Rule("the request", Action.REJECT),
]


def fault(
    status: int | None,
    said: str,
    codes: Sequence[Any] = (),
    *,
    after: float | None = None,
    billed: bool = False,
) -> RequestError:
    """Return the error that a server's words amount to.

    Args:
        status: the HTTP status; None for an error within an answer of status 200.
        said: its message.
        codes: its code, type and status, as numbers or in words.
        after: seconds of Retry-After.
        billed: whether the server may charge for it.
    """
    said = said[:LONGEST]
    status = status or next((number for code in codes if (number := _number(code))), None)
    words = [re.sub(r"[^a-z]", "", str(code).lower()) for code in codes]
    rule = next(rule for rule in TABLE if _fits(rule, status, words, said))
    reason = " ".join([str(status or next(filter(None, map(str, codes)), "")), said.strip()[:500]]).strip()
    if rule.advice:
        reason += f" ({rule.advice.rstrip('.')})"
    if rule.action is Action.REFUSED:
        return Filtered(reason, status or rule.status)
    # A wrong key may come with another status.
    known = rule.status if rule.action is Action.STOP_FIRST and status not in rule.statuses else status
    return RequestError(
        reason,
        known or rule.status,
        after=after,
        again=rule.action in (Action.RETRY, Action.WAIT),
        billed=billed,
        unavailable=rule.action is Action.WAIT,
        stop=rule.action is Action.STOP,
    )


def _fits(rule: Rule, status: int | None, codes: Sequence[str], said: str) -> bool:
    if not (rule.statuses or rule.codes or rule.words):
        return True
    return bool(
        status in rule.statuses
        or (rule.codes and any(re.fullmatch(rule.codes, code) for code in codes))
        or (
            rule.words
            and (not rule.within or (status or 0) in rule.within)
            and re.search(rule.words, said, re.IGNORECASE)
        )
    )


def _number(code: Any) -> int | None:
    """Return a code as an HTTP status, if it is one."""
    return int(str(code)) if re.fullmatch(r"[45][0-9]{2}", str(code)) else None


def error_in(data: Any) -> tuple[str, list[Any]] | None:
    """Return the message and codes of an error in a body of JSON, wherever servers put it; None if there is
    none: ``error`` as an object or a text, ``detail``, a bare code with a message, lists of these.
    """
    if isinstance(data, list):
        return next((found for entry in data[:10] if (found := error_in(entry))), None)
    if not isinstance(data, Mapping):
        return None
    error = data.get("error") or data.get("errors")
    if isinstance(error, list):
        return error_in(error) or (str(error), [])
    if isinstance(error, Mapping):
        more = error.get("metadata")
        flagged = isinstance(more, Mapping) and ("flagged_input" in more or "reasons" in more)
        return _said(error) or str(dict(error)), [*_codes(error), *(["flagged_input"] if flagged else [])]
    if isinstance(error, str):
        return error, _codes(data)
    if data.get("choices") or not (said := _said(data)):
        return None
    return said, _codes(data)


def _said(error: Mapping[str, Any]) -> str:
    told = (error.get(name) for name in ("message", "detail", "msg"))
    return next((say if isinstance(say, str) else str(say) for say in told if say), "")


def _codes(error: Mapping[str, Any]) -> list[Any]:
    named = (error.get(name) for name in ("code", "status", "type", "error_type"))
    return [code for code in named if isinstance(code, str | int) and code != ""]
