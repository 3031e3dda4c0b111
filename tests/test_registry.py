"""Names, options, plug-ins."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snellen import registry
from snellen.datasets.base import DATASETS
from snellen.errors import BadOption, UnknownName
from snellen.models.base import MODELS
from snellen.protocols.base import PROTOCOLS, Protocol
from snellen.registry import Registry, convert, parse_name
from snellen.types import Prediction, ask


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("closed-set", ("closed-set", "", {})),
        ("closed-set?rounds=3", ("closed-set", "", {"rounds": "3"})),
        ("hf:a/b?dtype=float16&revision=x", ("hf", "a/b", {"dtype": "float16", "revision": "x"})),
        ("folder:./why?", ("folder", "./why?", {})),
        ("folder:C:/x", ("folder", "C:/x", {})),
        ("binary?prompt=Is it a {name}?", ("binary", "", {"prompt": "Is it a {name}?"})),
        ("rank?prompt=a%26b c+d", ("rank", "", {"prompt": "a&b c+d"})),
        ("openai:gpt?base_url=http://h:1/v1?a", ("openai", "gpt", {"base_url": "http://h:1/v1?a"})),
    ],
)
def test_names(name, parts):
    assert parse_name(name) == parts


@given(
    st.text(st.characters(exclude_characters="?&=:%")),
    st.text(st.characters(exclude_characters="?&=%"), min_size=1),
)
def test_names_come_back(rest, value):
    scheme, found, options = parse_name(f"s:{rest}?k={value}")
    assert (scheme, found, options) == ("s", rest, {"k": value})


@pytest.mark.parametrize(
    ("value", "hint", "found"),
    [
        ("3", int, 3),
        ("0.5", float, 0.5),
        (1, float, 1),
        ("yes", bool, True),
        ("False", bool, False),
        ("x", str, "x"),
        ("none", int | None, None),
        ("none", str | None, "none"),
        (None, int | None, None),
        ("4", int | None, 4),
        ("b", Literal["a", "b"], "b"),
        ("a, b,", tuple[str, ...], ("a", "b")),
    ],
)
def test_options_are_read_as_their_types_say(value, hint, found):
    assert convert("o", value, hint) == found


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("x", int, "a whole number"),
        ("1.5", int, "a whole number"),
        ("x", float, "a number"),
        ("maybe", bool, "true or false"),
        ("c", Literal["a", "b"], "allowed: a, b"),
        (True, int, "type int"),
        (3, str, "type str"),
    ],
)
def test_what_does_not_fit_is_refused(value, hint, message):
    with pytest.raises(BadOption, match=message):
        convert("scheme?option", value, hint)


def test_options_on_the_name_beat_those_for_all():
    made = PROTOCOLS.make("closed-set?rounds=2", {"rounds": "7", "order": "fixed"}, seed=5)
    assert (made.rounds, made.order, made.seed) == (2, "fixed", 5)  # type: ignore[attr-defined]
    assert PROTOCOLS.make("closed-set?seed=9", {}, seed=5).seed == 9  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (PROTOCOLS, "closedset", "Unknown protocol 'closedset'. Did you mean 'closed-set'"),
        (PROTOCOLS, "rank:x", "Unknown protocol 'rank:x'"),
        (MODELS, "gpt-4", "Known: anthropic:NAME, azure:NAME, classifier:ORG/NAME"),
        (DATASETS, "./photos", "Did you mean 'folder:./photos'.*chart:shapes.*and [0-9]+ benchmarks"),
        (MODELS, "llava-hf/llava-1.5-7b-hf", "Did you mean 'hf:llava-hf/llava-1.5-7b-hf'"),
        (DATASETS, "", "Unknown data set"),
    ],
)
def test_unknown_names_say_what_is_known(kind, name, message):
    with pytest.raises(UnknownName, match=message):
        kind.make(name)


def test_unknown_options_say_what_is_known():
    with pytest.raises(BadOption, match="no option 'round'. Did you mean 'rounds'"):
        PROTOCOLS.make("closed-set?round=3")


@dataclass(frozen=True, kw_only=True)
class Shout(Protocol):
    """Ask loudly."""

    name: ClassVar[str] = "shout"
    volume: int = 3

    def examine(self, sample):
        """One question."""
        (reply,) = yield [ask(sample.images, "WHAT IS IT" + "!" * self.volume)]
        return Prediction(sample.id, reply.text)


def test_a_plug_in_is_found_by_its_entry_point(monkeypatch):
    points = {
        "snellen.protocols": [EntryPoint("shout", f"{__name__}:Shout", "snellen.protocols")],
    }
    monkeypatch.setattr(registry, "entry_points", lambda group: points.get(group, []))
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[__name__])
    fresh: Registry[Protocol] = Registry("protocol", "snellen.protocols", takes_rest=False)
    assert fresh.make("shout?volume=9").volume == 9  # type: ignore[attr-defined]
    assert fresh.entries["shout"].summary == "Ask loudly."


def test_a_plug_in_that_does_not_load_does_not_take_the_rest_down(monkeypatch):
    points = [EntryPoint("broken", "no.such.module:x", "snellen.protocols")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    fresh: Registry[Protocol] = Registry("protocol", "snellen.protocols", takes_rest=False)
    with pytest.warns(UserWarning, match="plug-in 'broken'.*No module"):
        assert "broken" not in fresh.entries


@pytest.mark.parametrize("kind", [MODELS, DATASETS, PROTOCOLS])
def test_every_options_type_can_be_read(kind):
    for entry in kind.entries.values():
        assert set(entry.options) <= set(entry.hints)
        for name, parameter in entry.options.items():
            if parameter.default is not parameter.empty:
                value = parameter.default
                assert convert(name, value, entry.hints[name]) == value


@pytest.mark.parametrize("kind", [MODELS, DATASETS, PROTOCOLS])
def test_everything_built_in_is_documented(kind):
    assert kind.entries
    for entry in kind.entries.values():
        doc = entry.factory.__doc__
        assert entry.summary.endswith((".", ":")) or "." in entry.summary
        for option in entry.options:
            assert f"``{option}" in doc or f"{option}=" in doc, f"{entry.scheme}: {option}"


def test_threads_that_start_at_once_all_find_everything():
    code = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from snellen.protocols.base import PROTOCOLS
from snellen.datasets.base import DATASETS
from snellen.metrics.registry import METRICS
barrier = threading.Barrier(8)
def work(i):
    barrier.wait()
    return len(PROTOCOLS.entries), len(DATASETS.entries), len(METRICS), "rank" in PROTOCOLS.entries
sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(work, range(8)))
assert len(set(found)) == 1 and found[0][3], found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
