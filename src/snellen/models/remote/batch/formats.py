"""The forms in which providers take batches, and give the answers.

Sources: the types of openai-python 3.52, groq 1.7, mistralai 3.7 and anthropic 2.14.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from snellen.models.remote.faults import error_in, fault
from snellen.models.remote.retry import RequestError
from snellen.models.remote.transport import ChatTransport
from snellen.models.remote.wire import parse

__all__ = ["FORMATS", "BatchFormat", "BatchProgress"]

#: The name under which a batch can be found again, in its metadata.
LABEL = "snellen"
#: An answer's body, or why there is none.
Result = Mapping[str, Any] | RequestError


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        ended: whether nothing more will be answered.
        answered: the number of answers.
        files: where they are.
        problem: why the batch failed as a whole; empty if it did not.
    """

    ended: bool
    answered: int
    files: tuple[str, ...] = ()
    problem: str = ""


class BatchFormat(ABC):
    """A provider's form of batches.

    Args:
        transport: the connection to it.
        model: the provider's name for it.
    """

    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, transport: ChatTransport, model: str) -> None:
        self.transport, self.model = transport, model

    @abstractmethod
    def line(self, key: str, body: bytes) -> bytes:
        """Return the line of a request, given as the body of a chat completion in JSON."""

    @abstractmethod
    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        """Submit a batch, and return its id.

        Raises:
            RequestError: it was refused, or it is unknown whether it was received.
        """

    @abstractmethod
    async def find(self, name: str, count: int, since: float) -> str | None:
        """Return the id of a batch that was submitted under this name, with so many requests, after a time
        (seconds since 1970); None if there is none.
        """

    @abstractmethod
    async def progress(self, batch: str) -> BatchProgress:
        """Return how far a batch is."""

    async def results(self, progress: BatchProgress) -> Iterator[tuple[str, Result]]:
        """Return the keys of an ended batch's requests with their answers."""
        lines = [line for file in progress.files for line in (await self._file(file)).splitlines()]
        rows = (parse(line) for line in lines if line.strip())
        return ((str(row.get("custom_id")), self._result(row)) for row in rows if isinstance(row, Mapping))

    async def _file(self, file: str) -> bytes:
        return await self.transport.fetch(f"/files/{file}/content")

    def _result(self, row: Mapping[str, Any]) -> Result:
        response = row.get("response")
        if not isinstance(response, Mapping):
            return _refused(row)
        body = response.get("body")
        status = response.get("status_code")
        if status not in (None, 200):
            return _refused(body, status if isinstance(status, int) else None)
        return body if isinstance(body, Mapping) else RequestError("the answer has no body")

    async def _json(self, address: str) -> Mapping[str, Any]:
        found = parse(await self.transport.fetch(address, self.headers))
        return found if isinstance(found, Mapping) else {}

    async def _create(self, address: str, body: bytes) -> str:
        found = await self.transport.submit(address, body, self.headers)
        if not isinstance(found, Mapping) or not isinstance(found.get("id"), str):
            raise _refused(found)
        return str(found["id"])


class OpenAIBatches(BatchFormat):
    """OpenAI and Groq: a file of requests, and files of answers and errors."""

    def line(self, key: str, body: bytes) -> bytes:
        head = json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions"}).encode()
        return head[:-1] + b', "body": ' + body + b"}"

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        file = await self.transport.upload(f"{name}.jsonl", b"\n".join(lines))
        batch = {
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {LABEL: name},
        }
        return await self._create("/batches", json.dumps(batch).encode())

    async def find(self, name: str, count: int, since: float) -> str | None:
        listed = (await self._json("/batches?limit=100")).get("data")
        return _labelled(listed, name)

    async def progress(self, batch: str) -> BatchProgress:
        data = await self._json(f"/batches/{batch}")
        counts = data.get("request_counts") or {}
        files = [data.get("output_file_id"), data.get("error_file_id")]
        status = data.get("status")
        problem = _problem(data) if status == "failed" else ""
        ended = status in ("failed", "completed", "expired", "cancelled")
        done = (counts.get("completed") or 0) + (counts.get("failed") or 0)
        return BatchProgress(ended, done, tuple(filter(None, files)), problem)


class MistralBatches(BatchFormat):
    """Mistral: likewise, with the model named once."""

    def line(self, key: str, body: bytes) -> bytes:
        return json.dumps({"custom_id": key}).encode()[:-1] + b', "body": ' + body + b"}"

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        file = await self.transport.upload(f"{name}.jsonl", b"\n".join(lines))
        job = {
            "input_files": [file],
            "model": self.model,
            "endpoint": "/v1/chat/completions",
            "metadata": {LABEL: name},
        }
        return await self._create("/batch/jobs", json.dumps(job).encode())

    async def find(self, name: str, count: int, since: float) -> str | None:
        return _labelled((await self._json("/batch/jobs?page_size=100")).get("data"), name)

    async def progress(self, batch: str) -> BatchProgress:
        data = await self._json(f"/batch/jobs/{batch}")
        status = data.get("status")
        problem = _problem(data) if status == "FAILED" else ""
        ended = status in ("SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED")
        files = tuple(filter(None, [data.get("output_file"), data.get("error_file")]))
        return BatchProgress(ended, data.get("completed_requests") or 0, files, problem)


class AnthropicBatches(BatchFormat):
    """Anthropic: the requests as its Messages API takes them, in one body."""

    headers: ClassVar[Mapping[str, str]] = {"anthropic-version": "2023-06-01"}

    def line(self, key: str, body: bytes) -> bytes:
        return json.dumps({"custom_id": key, "params": as_messages(json.loads(body))}).encode()

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        return await self._create("/messages/batches", b'{"requests": [' + b", ".join(lines) + b"]}")

    async def find(self, name: str, count: int, since: float) -> str | None:
        """Batches have no names here: it is the one with so many requests that was created then."""
        from datetime import datetime

        for batch in (await self._json("/messages/batches?limit=100")).get("data") or []:
            made = datetime.fromisoformat(str(batch.get("created_at"))).timestamp()
            if made >= since - 60 and sum((batch.get("request_counts") or {}).values()) == count:
                return str(batch["id"])
        return None

    async def progress(self, batch: str) -> BatchProgress:
        data = await self._json(f"/messages/batches/{batch}")
        counts = data.get("request_counts") or {}
        answered = sum(count for state, count in counts.items() if state != "processing")
        ended = data.get("processing_status") == "ended"
        return BatchProgress(ended, answered, (batch,) if ended else ())

    async def _file(self, file: str) -> bytes:
        return await self.transport.fetch(f"/messages/batches/{file}/results", self.headers)

    def _result(self, row: Mapping[str, Any]) -> Result:
        result = row.get("result")
        result = result if isinstance(result, Mapping) else {}
        if isinstance(message := result.get("message"), Mapping):
            return as_completion(message)
        if result.get("type") in ("expired", "canceled"):
            return RequestError(f"the batch {result['type']} before this request", again=False)
        return _refused(result.get("error"))


def as_messages(body: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a chat completion's request to one of Anthropic's Messages API.

    >>> as_messages({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]})
    {'model': 'm', 'max_tokens': 5, 'messages': [{'role': 'user', 'content': 'Hi'}]}
    """
    kept = ("model", "max_tokens", "temperature", "top_p")
    turns = list(body["messages"])
    system = [turns.pop(0)["content"]] if turns and turns[0]["role"] == "system" else []
    messages = [{"role": turn["role"], "content": _parts(turn["content"])} for turn in turns]
    given = {name: body[name] for name in kept if name in body}
    return {**given, **({"system": system[0]} if system else {}), "messages": messages}


def _parts(content: Any) -> Any:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    if part["type"] != "image_url":
        return part
    media, _, data = part["image_url"]["url"].removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}


def as_completion(message: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an answer of Anthropic's Messages API to a chat completion."""
    usage = message.get("usage") or {}
    cached = usage.get("cache_read_input_tokens") or 0
    into = (usage.get("input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0) + cached
    return {
        "id": message.get("id"),
        "model": message.get("model"),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": message.get("content")},
                "finish_reason": message.get("stop_reason"),
            }
        ],
        "usage": {
            "prompt_tokens": into,
            "completion_tokens": usage.get("output_tokens") or 0,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def _refused(said: Any, status: int | None = None) -> RequestError:
    """Return the error in a provider's words, wherever it is in them."""
    words, codes = error_in(said) or (f"no answer: {str(said)[:200]}", [])
    return fault(status, words, codes)


def _labelled(batches: Any, name: str) -> str | None:
    for batch in batches if isinstance(batches, list) else []:
        if (batch.get("metadata") or {}).get(LABEL) == name:
            return str(batch["id"])
    return None


def _problem(data: Mapping[str, Any]) -> str:
    errors = data.get("errors")
    listed = errors.get("data") if isinstance(errors, Mapping) else errors
    said = [str(error.get("message") or error) for error in listed or [] if isinstance(error, Mapping)]
    return "; ".join(said[:3]) or "the batch failed"


FORMATS: dict[str, type[BatchFormat]] = {
    "anthropic": AnthropicBatches,
    "mistral": MistralBatches,
    "openai": OpenAIBatches,
}
