"""Why a model fails: parts, verdicts, and what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

import tiny
from helpers import Scripted, made, picture, sample
from snellen.datasets.base import DATASETS, select
from snellen.datasets.shapes import KINDS
from snellen.diagnosis.analyses import probe
from snellen.diagnosis.analysis import Finding, Subject
from snellen.diagnosis.diagnosis import Diagnosis, chosen, diagnose, parts
from snellen.errors import UnknownName, Unsupported, UsageError
from snellen.metrics.classification import per_class
from snellen.models.base import MODELS
from snellen.models.huggingface.features import features
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.protocols.base import limit_candidates
from snellen.runs.compare import compare
from snellen.runs.filters import Filters
from snellen.runs.run import open_run
from snellen.storage.store import Store
from snellen.types import Kind, Response, Score, ask

pytestmark = pytest.mark.slow


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
def test_a_smaller_offer_is_among_a_larger_one(few, many, seed):
    few, many = sorted((few, many))
    one = sample([f"n{i}" for i in range(10)], "n3")
    small, large = (set(limit_candidates(one, n, seed).labels) for n in (few, many))
    assert small <= large
    assert "n3" in small
    assert len(small) == few


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tiny.save(name, tmp_path_factory.mktemp("tiny") / name)
        return made[name]

    return make


class TestModels:
    @pytest.mark.parametrize("name", ["llava", "qwen2_vl", "smolvlm", "idefics3", "gemma3"])
    def test_nothing_but_names_can_be_said(self, checkpoint, name):
        model = made(VisionLanguageModel, f"hf:{checkpoint(name)}?device=cpu")
        assert Kind.CONSTRAIN in model.kinds
        names = ("star", "starfish", "ring", "a polar bear")
        requests = [
            ask([picture(color)], "What is it?", continuations=names) for color in ("red", "blue", "green")
        ]
        free = [ask([picture("red")], "What is it?")]
        said = [reply.text.strip() for reply in model.answer(requests)]
        assert set(said) <= set(names)
        assert model.answer(free)[0].text.strip() not in names  # random weights say anything else
        # One alone is said as among others.
        assert [model.answer([request])[0].text.strip() for request in requests] == said
        model.close()

    def test_who_cannot_is_refused(self, workspace):
        import snellen

        class Free(Scripted):
            kinds = frozenset({Kind.GENERATE})

        with pytest.raises(Unsupported, match="constrain"):
            snellen.run(
                model=Free(lambda r: "x"), data="chart:shapes?n=4", protocol="closed-set?constrained=true"
            )

    @pytest.mark.parametrize("name", ["llava", "qwen2_vl", "smolvlm"])
    def test_features_are_the_models_own(self, checkpoint, name):
        import torch

        model = made(VisionLanguageModel, f"hf:{checkpoint(name)}?device=cpu")
        request = ask([picture("red")], "What is it?")
        found = features(model, request, "all")
        with torch.inference_mode():
            inputs = model.on_device(model.process(model.prompt(request.messages), request.images))
            states = model.decoder(**inputs, output_hidden_states=True).hidden_states
        last = len(states) - 1
        assert torch.equal(found[f"layer {last}, last token"], states[-1][0, -1].float())
        assert torch.allclose(found["layer 0, mean"], states[0][0].float().mean(0))
        assert {"vision tower", "projector"} <= set(found)
        only = features(model, request)
        assert {k for k in only if k.startswith("layer")} == {
            f"layer {last}, last token",
            f"layer {last}, mean",
        }
        model.close()


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("diagnosis") / "workspace")
    patch = pytest.MonkeyPatch()
    patch.setattr(probe, "TRAINED_ON", 1000)
    found = Subject(
        model="pico:llava-skewed",
        data="chart:shapes",
        store=store,
        references=("pico:clip", "pico:classifier"),
        filters=Filters(limit=56),
    )
    yield found
    found.close()
    store.close()
    patch.undo()


@pytest.fixture(scope="module")
def diagnosis(case):
    return diagnose(case)


class TestDiagnosis:
    def test_every_part_finds_something(self, diagnosis):
        assert [one.part for one in diagnosis.findings] == list(parts())
        assert [one.title for one in diagnosis.findings] == [
            *("The gap", "Fewer names", "Wordings", "Order of names", "Chain of thought", "Decoding"),
            *("Probe", "Exposure", "Size", "Confusions"),
        ]
        assert diagnosis.left_out == {}
        json.dumps(diagnosis.as_dict())

    def finding(self, diagnosis, name):
        return next(one for one in diagnosis.findings if one.part == name)

    def test_the_studys_findings_in_small(self, diagnosis):
        """Of this model, which was taught so; what is not shown is said to be."""
        assert self.finding(diagnosis, "gap").shows
        found = self.finding(diagnosis, "probe")
        assert found.figures["difference"]["value"] > 0.05
        # 56 images decide it on some machines only, whose last digits differ.
        assert found.shows == (True if found.figures["p"] < 0.05 else None)
        exposure = self.finding(diagnosis, "exposure")
        assert exposure.shows
        assert exposure.figures["spearman"]["low"] > 0
        rare = self.finding(diagnosis, "probe").figures["rare"]
        assert rare["probe"] > rare["generated"] + 0.1

    def test_the_gap_is_that_of_a_comparison(self, diagnosis, case):
        found = self.finding(diagnosis, "gap")
        best = found.figures["best_reference"]
        runs = {
            r.model: r for r in (open_run(id, case.store.folder) for id in found.runs) if r.protocol == "rank"
        }
        (one,) = compare([case.closed, runs[best]], across=True)
        assert found.figures["difference"]["closed-set, one round"] == one.result.difference.as_dict()
        assert f"{100 * case.closed.metrics['accuracy'].value:.1f}%" in str(found.tables)

    def test_the_correlation_is_scipys(self, diagnosis, case):
        found = self.finding(diagnosis, "exposure").figures
        frame = case.closed.outcomes
        recall = {
            r["class"]: r["recall"]
            for r in per_class(frame["label"].tolist(), frame["prediction"].tolist())
            if r["support"]
        }
        names = sorted(recall)
        expected = spearmanr([found["counts"][n] for n in names], [recall[n] for n in names]).statistic
        assert found["spearman"]["value"] == pytest.approx(expected)

    def test_places_and_rounds_are_recounted(self, diagnosis, case):
        found = self.finding(diagnosis, "order").figures
        voted = open_run(self.finding(diagnosis, "order").runs[1], case.store.folder)
        frame = voted.predictions
        assert found["by_rounds"][5] == pytest.approx((frame["prediction"] == frame["label"]).mean())
        first = frame["votes"].str[0] == frame["label"]
        assert found["by_rounds"][1] == pytest.approx(first.mean())

    def test_the_sweep_ends_at_all_names(self, diagnosis, case):
        found = self.finding(diagnosis, "sweep")
        mine = found.figures["pico:llava-skewed"]
        assert list(mine) == [2, 5, 10, 20, 25, 28]
        assert mine[28]["value"] == case.closed.metrics["accuracy"].value
        assert found.charts[0]["kind"] == "curves"

    def test_nothing_is_asked_twice(self, diagnosis, case):
        def answers():
            return case.store.do(lambda c: c.exec_driver_sql("SELECT count(*) FROM responses").scalar())

        before, files = answers(), sorted((case.store.folder / "features").rglob("*.npy"))
        stamps = [path.stat().st_mtime_ns for path in files]
        parts = ["gap", "sweep", "cot", "probe"]
        again = diagnose(case, parts)
        assert answers() == before
        assert [path.stat().st_mtime_ns for path in files] == stamps
        before = {one.part: one.verdict for one in diagnosis.findings}
        assert {one.part: one.verdict for one in again.findings} == {part: before[part] for part in parts}

    def test_the_report(self, diagnosis, tmp_path):
        diagnosis.write(tmp_path / "d.html")
        text = (tmp_path / "d.html").read_text()
        assert "default-src 'none'" in text
        for one in diagnosis.findings:
            assert one.title in text
        assert "<script" not in text

    def test_parts_by_name(self):
        assert [part.name for part in chosen(["cot,gap"])] == ["gap", "cot"]
        with pytest.raises(UnknownName, match="Did you mean 'sweep'"):
            chosen(["swep"])


class TestWhatIsMissing:
    def test_no_training_split(self, workspace, photos):
        case = Subject(
            model="pico:llava", data=f"folder:{photos}", store=Store(workspace), filters=Filters(limit=5)
        )
        found = diagnose(case, ["probe", "exposure", "gap"])
        case.close()
        assert found.left_out["probe"] == "the data set has classes with fewer than two readable images"
        assert "--reference" in found.left_out["gap"]

    def test_without_a_training_split_the_probe_is_cross_validated(self, workspace, photos):
        """Features that hold the class are found; the note says how."""
        case = Subject(model="pico:llava", data=f"folder:{photos}", store=Store(workspace))
        (finding,) = diagnose(case, ["probe"]).findings
        case.close()
        assert finding.figures["cross_validated"] is True
        assert finding.figures["trained_on"] == 20
        assert max(each["value"] for each in finding.figures["accuracy"].values()) > 0.6
        assert "cross-validation; equal images stay together" in finding.tables[0].note

    def test_equal_images_are_never_on_both_sides(self):
        """With random labels, where a copy on the other side would tell the answer."""
        rng = np.random.default_rng(0)
        features = np.repeat(rng.normal(size=(40, 64)), 2, axis=0)
        truth = np.repeat(rng.permutation(["a", "b"] * 20), 2).tolist()
        copies = np.repeat(np.arange(40), 2).tolist()
        apart = probe.cross_fit(features, truth, list(range(80)), "linear")
        together = probe.cross_fit(features, truth, copies, "linear")
        assert sum(apart) / 80 > 0.8
        assert sum(together) / 80 < 0.7

    def test_a_training_split_that_is_the_test(self, workspace):
        data = {"n": 28}
        case = Subject(
            model="pico:llava", data="chart:shapes", store=Store(workspace), train="test", data_options=data
        )
        found = diagnose(case, ["probe", "confusions"])
        case.close()
        assert "are also test samples" in found.left_out["probe"]
        assert [one.part for one in found.findings] == ["confusions"]  # the others are not lost

    def test_what_breaks_takes_nothing_along(self, workspace, monkeypatch):
        from snellen.diagnosis.analyses.size import Size

        monkeypatch.setattr(Size, "run", lambda *_: 1 / 0)
        case = Subject(
            model="pico:llava", data="chart:shapes", store=Store(workspace), filters=Filters(limit=28)
        )
        found = diagnose(case, ["size", "confusions"])
        case.close()
        assert "ZeroDivisionError" in found.left_out["size"]
        assert len(found.findings) == 1

    def test_a_model_that_guesses_confirms_nothing(self, workspace):
        """Of noise nothing can be known, and no claim follows from that."""
        import random

        from PIL import Image

        rng = random.Random(0)
        for split in ("train", "test"):
            for name in ("star", "ring", "heart", "key"):
                for k in range(6):
                    path = workspace.parent / "noise" / split / name / f"{k}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.frombytes("RGB", (48, 48), rng.randbytes(48 * 48 * 3)).save(path)
        data = f"folder:{workspace.parent / 'noise'}"
        case = Subject(
            model="pico:llava",
            data=data,
            store=Store(workspace),
            train="train",
            filters=Filters(split="test"),
        )
        found = diagnose(case, ["prompts", "order", "cot", "probe"])
        case.close()
        assert found.left_out == {}
        assert {one.part: one.shows for one in found.findings} == dict.fromkeys(
            ("prompts", "order", "cot", "probe")
        )

    def test_a_model_that_tells_nothing_but_text(self, workspace, monkeypatch):
        class Free(Scripted):
            kinds = frozenset({Kind.GENERATE})

        MODELS.register("free")(lambda rest: Free(lambda r: "star", "free:x"))
        case = Subject(model="free:x", data="chart:shapes", store=Store(workspace), filters=Filters(limit=56))
        found = diagnose(case, ["decoding", "probe", "exposure", "confusions"])
        assert set(found.left_out) == {"decoding", "probe", "exposure"}
        assert "likelihoods" in found.left_out["decoding"]
        assert "--captions" in found.left_out["exposure"]

    def test_one_class_or_none(self, workspace, tmp_path):
        with pytest.raises(UsageError):
            Subject(
                model="pico:llava",
                data="chart:shapes?ask=color",
                store=Store(workspace),
                filters=Filters(classes=["star"]),
            )

    def test_captions_of_ones_own(self, workspace, tmp_path):
        file = tmp_path / "captions.txt"
        file.write_text(
            "".join(f"a {kind}\n" * n for n, kind in enumerate(["star", "ring", "heart", "key"], 1))
        )
        case = Subject(
            model="pico:llava",
            data="chart:shapes",
            store=Store(workspace),
            captions=[file],
            filters=Filters(limit=56),
        )
        found = diagnose(case, ["exposure"]).findings[0]
        case.close()
        assert {k: v for k, v in found.figures["counts"].items() if v} == {
            "star": 1,
            "ring": 2,
            "heart": 3,
            "key": 4,
        }
        assert "captions.txt" in found.verdict


def test_the_command(workspace, monkeypatch, capsys, tmp_path):
    from snellen import cli

    def snellen(*arguments):
        monkeypatch.setattr("sys.argv", ["snellen", "diagnose", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    given = ["pico:llava-skewed", "--data", "chart:shapes", "--limit", 28, "--quiet"]
    code, out, _ = snellen(*given, "--only", "cot,confusions", "-o", tmp_path / "r.html")
    assert code == 0
    assert "Chain of thought" in out
    assert (tmp_path / "r.html").is_file()
    document = json.loads(snellen(*given, "--only", "cot", "--json")[1])
    assert [one["part"] for one in document["findings"]] == ["cot"]
    assert Path(document["report"]).is_file()
    for arguments, told in (
        (["--only", "nothing"], "Known: gap"),
        (["--only", "exposure", "--captions", tmp_path / "none.txt"], "cannot be read"),
        (["--only", "probe", "--train-split", "nowhere"], "cannot be read"),
    ):
        code, out, err = snellen(*given, *arguments)
        assert told in out + err
        assert "Traceback" not in err


@pytest.fixture
def told(workspace):
    """Returns a way to make a subject from a model whose answers a function gives."""

    def subject(answer, n: int = 112, references: tuple[str, ...] = ()) -> Subject:
        MODELS.register("told")(lambda rest: Scripted(answer, "told:x"))
        return Subject(
            model="told:x",
            data="chart:shapes?n=112",
            store=Store(workspace),
            references=references,
            filters=Filters(limit=n),
        )

    return subject


@pytest.fixture(scope="module")
def shape_of():
    """Looks up the shape that a request shows."""
    known = {s.images[0].sha256: str(s.label) for s in select(DATASETS.make("chart:shapes?n=112"))}
    return lambda request: known[request.images[0].sha256]


def asked(request) -> str:
    """The question's text."""
    return request.messages[-1].text


def listed(text: str) -> list[str]:
    """The names in a question, in order."""
    words = re.findall(r"[a-z-]+", text.lower())
    return [word for word in words if word in KINDS]


class TestHonestVerdicts:
    def test_answers_that_cannot_be_read_conclude_nothing(self, told):
        case = told(lambda request: "I would rather not say.", 56, ("pico:classifier",))
        found = {
            one.part: one for one in diagnose(case, ["gap", "sweep", "prompts", "order", "cot"]).findings
        }
        case.close()
        assert {name: one.shows for name, one in found.items()} == dict.fromkeys(found)
        assert len(found) == 5
        for one in found.values():
            assert "only 0 of its 56 answers could be parsed" in one.verdict
            assert "matters little" not in one.verdict

    def test_a_reference_that_guesses_tells_nothing_of_the_gap(self, told, shape_of):
        """As a CLIP does that was given names in a language it never saw."""

        def answer(request):
            names = len(request.continuations)
            return Response(scores=(Score(0.0, 1), *[Score(-1.0, 1)] * (names - 1)))

        MODELS.register("guess")(lambda rest: Scripted(answer, "guess:x"))
        case = told(shape_of, 112, ("guess:x",))
        (gap,) = diagnose(case, ["gap"]).findings
        case.close()
        assert gap.shows is None
        assert "as guess:x's answers are no better than guessing" in gap.verdict
        assert "not behind" not in gap.verdict

    def test_a_model_that_writes_nothing_is_no_subject(self, workspace):
        with pytest.raises(UsageError, match=r"generates no text.*--reference pico:clip"):
            Subject(model="pico:clip", data="chart:shapes?n=28", store=Store(workspace))

    def test_no_chain_no_conclusion(self, told, shape_of):
        case = told(shape_of)
        (cot,) = diagnose(case, ["cot"]).findings
        case.close()
        assert cot.shows is None
        assert "wrote no chain of thought" in cot.verdict

    def test_a_written_chain_is_judged(self, told, shape_of):
        chain = "First I look at the outline, then I count its corners and compare. So my answer is: "
        case = told(lambda r: (chain if "step by step" in asked(r) else "") + shape_of(r))
        (cot,) = diagnose(case, ["cot"]).findings
        case.close()
        assert cot.shows is True
        assert "within 5 points" in cot.verdict

    def test_places_that_differ_are_order_even_if_the_mean_stays(self, told, shape_of):
        """Wrong where the right name stands in the first fifth: fixed and shuffled lists have the same mean,
        and yet order matters.
        """

        def answer(request):
            names, right = listed(asked(request)), shape_of(request)
            return names[-1] if right in names[: len(names) // 5] else right

        case = told(answer)
        (order,) = diagnose(case, ["order"]).findings
        case.close()
        assert order.figures["p_places"] < 0.001
        assert order.shows is False
        assert "Order matters here" in order.verdict

    def test_few_images_do_not_show_that_order_matters_little(self, told, shape_of):
        case = told(shape_of, 28)
        (order,) = diagnose(case, ["order"]).findings
        case.close()
        assert order.shows is None
        assert "not enough images to tell" in order.verdict

    def test_behind_without_a_list_only(self, told, shape_of):
        """At its best it is not behind, so the study's finding is not repeated."""
        case = told(lambda r: shape_of(r) if listed(asked(r)) else "a picture", 112, ("pico:classifier",))
        (gap,) = diagnose(case, ["gap"]).findings
        case.close()
        assert gap.shows is not True
        assert "It is behind under some protocols" in gap.verdict


def test_the_headline_counts_what_was_decided():
    shown = [True, None, False]
    findings = [Finding(part=str(i), title="t", verdict="v", shows=s) for i, s in enumerate(shown)]
    page = Diagnosis(model="m", data="d", n=3, findings=findings).html()
    assert "These images decide 2 of the findings" in page
    assert "1 of them holds" in page
    nothing = Diagnosis(model="m", data="d", n=3, findings=findings[1:2]).html()
    assert "These images decide none of the findings" in nothing
    assert "of them hold" not in nothing


def test_confusions_within_a_sort(tmp_path):
    """Of names that share a word it is told how many confusions are among them."""
    from PIL import Image

    for name in ("polar_bear", "brown_bear", "cat"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            color = (hash(name) % 200, 40 * i, 90)
            Image.new("RGB", (16, 16), color).save(tmp_path / "photos" / name / f"{i}.png")
    case = Subject(model="pico:llava", data=f"folder:{tmp_path / 'photos'}", store=Store(tmp_path / "ws"))
    said = iter(["polar bear"] * 8 + ["cat"] * 4)
    case.resources.models["pico:llava"] = case.subject = Scripted(
        lambda request: next(said), "pico:llava", batch_size=12
    )
    found = diagnose(case, ["confusions"])
    figures = found.findings[0].figures
    truths = [case.selection[i].label for i in range(8)]
    assert figures["siblings"] == sum(label == "brown bear" for label in truths)
    assert "share a word" in found.findings[0].verdict
    assert "share a word" in found.findings[0].tables[0].headings


def test_features_go_on_where_they_were(tmp_path):
    """Interrupted in the middle, only what is missing is computed; the rows are those of one go."""
    from snellen.models.huggingface import features as module

    model = made(VisionLanguageModel, "pico:llava")
    selection = Subject(model="pico:llava", data="chart:shapes?n=56", store=Store(tmp_path / "ws")).selection
    places = list(range(56))
    whole = module.stored(model, selection, places, "What?", tmp_path / "whole")
    real, asked = module.batched, []

    def stops(model, requests, *args):
        asked.append(len(requests))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(model, requests, *args)

    module.batched = stops
    try:
        with pytest.raises(KeyboardInterrupt):
            module.stored(model, selection, places, "What?", tmp_path / "part")
        found = module.stored(model, selection, places, "What?", tmp_path / "part")
    finally:
        module.batched = real
    assert asked == [32, 24, 24]
    assert found.keys() == whole.keys()
    for name, rows in whole.items():
        assert (rows == found[name]).all()
    assert [path.suffix for path in (tmp_path / "part").iterdir()] == [""]
    model.close()
