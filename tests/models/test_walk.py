"""Log-likelihoods by a walk over the beginnings that answers share."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asking import answers, model_at, question
from snellen.models.remote.walk import next_tokens, plan, scores_of
from snellen.testing import Server, completion
from snellen.types import Kind, Message

PROMPT = [1, 2, 3]
PIECES = ["golden", "gold", " star", " moon", "star", "red", "y"]


def tokens_of(text):
    """Pieces, longest first, and single characters; a prompt's space before the answer is dropped."""
    tokens = []
    while text:
        piece = max((p for p in PIECES if text.startswith(p)), key=len, default=text[0])
        tokens.append(100 + PIECES.index(piece) if piece in PIECES else ord(piece))
        text = text.removeprefix(piece)
    return tokens


def text_of(tokens):
    return "".join(PIECES[token - 100] if 100 <= token < 110 else chr(token) for token in tokens)


def likely(text, token):
    """The log-probability of a token after this text."""
    return -1 - (hash((text.strip(), token)) % 1000) / 100


def expected(name, begun=""):
    total = 0.0
    for token in tokens_of(name):
        total += likely(begun, token)
        begun += text_of([token])
    return total


class VllmServer(Server):
    """Answers like vLLM, of which older versions do not know ``logprob_token_ids``."""

    def __init__(self, newer=True, detokenizes=True):
        endpoints = {"/tokenize": self._tokenized}
        if detokenizes:
            endpoints["/detokenize"] = lambda asked: {"prompt": text_of(asked.body["tokens"])}
        super().__init__(self._next, endpoints=endpoints)
        self._newer = newer
        self.tokenized = 0

    @staticmethod
    def _said(body):
        last = body["messages"][-1]
        return last["content"] if last["role"] == "assistant" else ""

    def _tokenized(self, asked):
        self.tokenized += 1
        return {"tokens": PROMPT + tokens_of(self._said(asked.body))}

    def _next(self, asked):
        said = self._said(asked.body)
        data = completion("")
        if "prompt_logprobs" in asked.body:
            tokens = tokens_of(said)
            listed = [None, *({str(t): {"logprob": -9.0}} for t in PROMPT[1:])]
            listed += [{str(t): {"logprob": likely(text_of(tokens[:i]), t)}} for i, t in enumerate(tokens)]
            return {**data, "prompt_logprobs": listed}
        wanted = asked.body["logprob_token_ids"] if self._newer and "logprob_token_ids" in asked.body else []
        top = [{"token": f"token_id:{token}", "logprob": likely(said, token)} for token in wanted]
        data["choices"][0]["logprobs"] = {"content": [{"top_logprobs": top}]}
        return data


def scored(*names):
    return replace(question("?"), kind=Kind.SCORE, continuations=names)


NAMES = ("golden star", "golden moon", "gold", "red star", "red moon", "red")


class TestWalk:
    def test_shared_beginnings_are_asked_once(self):
        server = VllmServer()
        with server:
            first, second = answers(model_at(server, "vllm"), scored(*NAMES), scored(*NAMES))
        assert [score.value for score in first.scores] == pytest.approx([expected(n) for n in NAMES])
        assert [score.tokens for score in first.scores] == [2, 2, 1, 2, 2, 1]
        assert first.scores == second.scores
        assert len(server.asked) == 2 * 3  # the prompt, "golden", "red"
        assert server.tokenized <= 2 + 1 + len(NAMES) + 2  # once for both
        assert first.prompt_tokens == 300

    def test_a_started_answer_goes_on(self):
        request = scored("red star", "star")
        started = replace(request, messages=(*request.messages, Message("assistant", ("It is a",))))
        with VllmServer() as server:
            (reply,) = answers(model_at(server, "vllm"), started)
        assert [s.value for s in reply.scores] == pytest.approx(
            [expected(" red star", "It is a"), expected(" star", "It is a")]
        )
        assert all("prompt_logprobs" not in asked.body for asked in server.asked)

    def test_what_cannot_be_written_is_scored_whole(self):
        """Here, since the text of a beginning is lost, as that of half a character is."""
        names = ("red star", "\x07y", "\x07star")

        class Losing(VllmServer):
            def __init__(self):
                super().__init__()
                self._endpoints["/detokenize"] = lambda asked: {
                    "prompt": text_of(asked.body["tokens"]).replace("\x07", "�")
                }

        with Losing() as server:
            (reply,) = answers(model_at(server, "vllm"), scored(*names))
        assert [s.value for s in reply.scores] == pytest.approx([expected(n) for n in names])
        whole = [asked for asked in server.asked if "prompt_logprobs" in asked.body]
        assert len(whole) == 3  # the prompt, and two names
        assert len(server.asked) == 2 + 3

    @pytest.mark.parametrize("server", [{"newer": False}, {"detokenizes": False}])
    def test_servers_that_cannot_are_asked_as_before(self, server):
        with VllmServer(**server) as server:
            first, second = answers(model_at(server, "vllm"), scored(*NAMES), scored(*NAMES))
        values = [expected(n) for n in NAMES]
        assert [s.value for s in first.scores] == pytest.approx(values)
        assert [s.value for s in second.scores] == pytest.approx(values)


words = st.lists(st.text("ab c", min_size=1, max_size=6).map(str.strip).filter(bool), min_size=1, unique=True)


async def nothing(tokens):
    return ""


class TestPlan:
    @given(words)
    def test_sums_of_single_tokens_are_those_of_the_whole(self, names):
        async def tokenize(text):
            return [0, *map(ord, text)]

        async def detokenize(tokens):
            return "".join(map(chr, tokens))

        walk = asyncio.run(plan(names, "", tokenize, detokenize))
        assert walk is not None
        replies = []
        for _, text, wanted in walk.steps:
            top = [{"token": f"token_id:{t}", "logprob": likely(text, t)} for t in wanted]
            data = completion("")
            data["choices"][0]["logprobs"] = {"content": [{"top_logprobs": top}]}
            replies.append(data)
        scores = scores_of(walk, replies)
        assert scores is not None
        for name, answer, score in zip(names, walk.answers, scores, strict=True):
            if answer is None:
                assert score is None
                continue
            sums = sum(likely(name[:i], ord(character)) for i, character in enumerate(name))
            assert math.isclose(score.value, sums, rel_tol=1e-9)
        assert walk.steps[0][:2] == ((), "")
        assert len({path for path, _, _ in walk.steps}) == len(walk.steps)

    def test_an_answer_that_changes_the_prompt_s_tokens(self):
        async def tokenize(text):
            return [1, 2, ord(text[0])] if text else [1, 3]

        assert asyncio.run(plan(["a", "b"], "", tokenize, nothing)) is None

    def test_many_next_tokens_take_several_requests(self):
        async def tokenize(text):
            return [0, *([int(text)] if text else [])]

        walk = asyncio.run(plan([str(n) for n in range(300)], "", tokenize, nothing))
        assert walk is not None
        assert [len(wanted) for _, _, wanted in walk.steps] == [128, 128, 44]
        assert sum((wanted for _, _, wanted in walk.steps), ()) == next_tokens([(n,) for n in range(300)])[()]
