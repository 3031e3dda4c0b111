"""Fine-tuning from start to finish: what changes, what it gains, what is recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import tiny
from snellen.api import run
from snellen.datasets.base import DATASETS, select
from snellen.datasets.shapes import KINDS
from snellen.errors import BadOption, ModelError, Stopped, Unsupported, UsageError
from snellen.models.base import MODELS
from snellen.runs.filters import Filters
from snellen.storage.store import Store
from snellen.tuning.recipes import RECIPES, part_of
from snellen.tuning.tuning import MANIFEST, Tuning
from snellen.types import Kind, Request
from tuned import half, short

pytestmark = pytest.mark.slow


def test_classes_choose_what_is_trained_and_tested(tmp_path, ws):
    plan = short(tmp_path / "out", ws, filters=Filters(classes=("star,ring", "cup"))).plan
    assert set(plan.train_set.labels) == set(plan.test.labels) == {"star", "ring", "cup"}
    rows = [plan.train_set.data.row(index) for index in plan.train_set.indices]
    assert {row.label for row in rows} == {"star", "ring", "cup"}


class TestTuning:
    def test_it_mends_rare_classes(self, tmp_path, ws):
        """In small what docs/tuning.md reports: a gain that no chance makes, and colors are not forgotten."""
        found = Tuning(
            model="pico:llava-skewed",
            data="chart:shapes?n=196",
            out=tmp_path / "out",
            train_limit=560,
            settings={"max_steps": 40, "eval_steps": 40, "per_device_train_batch_size": 16},
            workspace=ws,
        ).run()
        closed, open_, color = found.results
        assert closed.verdict == open_.verdict == "better"
        assert closed.paired.difference.low > 0
        assert color.verdict == "no difference shown"
        assert color.before > 0.9
        assert color.after > 0.9
        assert found.weakest.paired.difference.low > 0
        # The figures are those of the runs.
        store = Store(ws)
        from snellen.runs.run import Run

        one, other = (Run(store, id) for id in (closed.first, closed.second))
        assert other.metrics["accuracy"].value == closed.after
        assert (one.outcomes["id"] == other.outcomes["id"]).all()
        right = [(r.outcomes["prediction"] == r.outcomes["label"]).mean() for r in (one, other)]
        assert closed.paired.difference.value == pytest.approx(right[1] - right[0])
        held = yaml.safe_load((tmp_path / "out" / MANIFEST).read_text())
        accuracies = [row for row in held["log"]["lora"] if "held_out_accuracy" in row]
        assert accuracies[0]["step"] == 0
        assert accuracies[-1]["held_out_accuracy"] > accuracies[0]["held_out_accuracy"]
        assert held["finished"]
        assert (tmp_path / "out" / "curves.png").stat().st_size > 10_000
        assert not (tmp_path / "out" / "checkpoints").exists()

    @pytest.mark.parametrize(
        "recipe",
        [
            "lora",
            "full",
            pytest.param("projector", marks=pytest.mark.exhaustive),
            pytest.param("two-stage", marks=pytest.mark.exhaustive),
        ],
    )
    def test_only_what_a_recipe_names_changes(self, tmp_path, ws, recipe, monkeypatch):
        from snellen.models.pico import WEIGHTS
        from snellen.tuning import runner

        out = tmp_path / "out"

        def broken(*given):
            raise Stopped("The converter failed.")

        tuning = short(out, ws, recipe=recipe, export=["vllm"])
        with monkeypatch.context() as patch:
            patch.setattr(runner, "deploy", broken)
            with pytest.raises(Stopped, match="converter failed"):
                tuning.run()
        assert "## Results" in (out / "README.md").read_text()  # stand, whatever a converter does
        found = short(out, ws, recipe=recipe, export=["vllm", "ollama"]).run()
        weights = "merged" if recipe == "lora" else "."
        assert (out / "Modelfile").read_text().startswith(f"FROM {weights.replace('merged', './merged')}\n")
        assert [deployment.format for deployment in found.deployments] == ["vllm", "ollama"]
        assert "## Serve (vllm)" in (out / "README.md").read_text()
        old = load_file(WEIGHTS / "llava-skewed" / "model.safetensors")
        saved = load_file((out / "merged" if recipe == "lora" else out) / "model.safetensors")
        # Under the names that servers read.
        assert any(name.startswith("vision_tower.vision_model.") for name in saved)
        new = {name.replace("vision_tower.vision_model.", "vision_tower."): x for name, x in saved.items()}
        changed = {part_of(key) for key in old if not torch.equal(old[key].float(), new[key].float())}
        wanted = {"lora": {"decoder"}, "projector": {"projector"}, "full": {"projector", "decoder"}}
        wanted["full"] |= {"vision tower"}
        assert changed == wanted.get(recipe, {"projector", "decoder"})
        assert 0 < found.facts["trained"] <= found.facts["parameters"]
        held = yaml.safe_load((out / MANIFEST).read_text())
        assert list(held["log"]) == [stage.name for stage in RECIPES[recipe].stages]
        if recipe == "lora":  # merged or not, it answers the same
            runs = [
                run(model=f"hf:{folder}", data="chart:shapes?n=28", workspace=ws)
                for folder in (out, out / "merged")
            ]
            assert runs[0].outcomes["prediction"].tolist() == runs[1].outcomes["prediction"].tolist()

    def test_a_head(self, tmp_path, ws):
        out = tmp_path / "out"
        found = short(out, ws, recipe="head", train_limit=336, settings={}).run()
        assert found.model == f"head:{out}"
        assert found.results[0].after > 0.6
        assert len(found.results) == 1
        # The scores are those of scikit-learn's own model on the same features.
        from snellen.models.huggingface.features import features
        from snellen.prompts import OPEN_WORLD
        from snellen.types import ask

        head = MODELS.make(found.model)
        one = select(DATASETS.make("chart:shapes?n=28"))[5]
        request = Request(ask(one.images, "?").messages, Kind.SCORE, continuations=KINDS)
        head.load()
        scores = [s.value for s in head.answer([request])[0].scores]  # type: ignore[attr-defined]
        assert np.logaddexp.reduce(scores) == pytest.approx(0, abs=1e-5)
        held = load_file(out / "head.safetensors")
        seen = features(head.base, ask(one.images, OPEN_WORLD[0]))  # type: ignore[attr-defined]
        last = next(v for k, v in seen.items() if k.endswith("last token"))
        logits = held["weight"] @ ((last - held["mean"]) / held["scale"]) + held["bias"]
        names = json.loads((out / "head.json").read_text())["labels"]
        expected = torch.log_softmax(logits.double(), 0)
        assert scores == pytest.approx([float(expected[names.index(k)]) for k in KINDS], abs=1e-4)
        with pytest.raises(ModelError, match="no head found"):
            MODELS.make(f"head:{tmp_path}")
        # Where all that it needs is known already, nothing else comes out.
        again = short(tmp_path / "again", ws, recipe="head", train_limit=336, settings={}).run()
        assert {**again.facts, "effective": None} == {**found.facts, "effective": None}
        assert all(
            torch.equal(v, held[k]) for k, v in load_file(tmp_path / "again" / "head.safetensors").items()
        )

    def test_a_dual_encoder(self, tmp_path, ws):
        out = tmp_path / "out"
        found = short(out, ws, model="pico:clip").run()
        assert found.model == f"clip:{out}"
        assert found.results[0].task.endswith("rank")
        held = yaml.safe_load((out / MANIFEST).read_text())
        assert any("held_out_accuracy" in row for row in held["log"]["full"]) == bool(held["validation"])
        with pytest.raises(BadOption, match="dual encoder"):
            short(tmp_path / "o", ws, model="pico:clip", recipe="head", settings={})

    def test_rare_and_hard_ones_come_more_often(self, tmp_path, ws):
        tuning = short(tmp_path / "out", ws, oversample=["hard", "rare"])
        found = tuning.run()
        source = tuning.plan.sources[0]
        assert source.wrong
        assert all(name in KINDS for names in source.confused.values() for name in names)
        assert found.facts["examples"][0]["examples"] > 2 * (112 - found.facts["validation"])

    @pytest.mark.exhaustive
    def test_several_seeds(self, tmp_path, ws):
        """The same split and settings, other seeds: the first is the result, the spread is that of all."""
        found = short(tmp_path / "out", ws, seeds=2, settings={"max_steps": 3, "eval_steps": 3}).run()
        assert (tmp_path / "out-seed-1" / MANIFEST).exists()
        held = yaml.safe_load((tmp_path / "out-seed-1" / MANIFEST).read_text())
        assert held["seed"] == 1
        for place, spread in enumerate(found.seeds):
            assert spread.task == found.results[place].task
            assert spread.scores == (found.results[place].after, held["results"][place]["after"])
        assert "over 2 seeds" in str(found.seeds[0])
        weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("out", "out-seed-1")]
        assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        with pytest.raises(BadOption, match="--seeds 0"):
            short(tmp_path / "o", ws, seeds=0)

    def test_done_twice_it_is_done_once(self, tmp_path, ws):
        out = tmp_path / "out"
        first = short(out, ws).run()
        weights = (out / "adapter_model.safetensors").stat().st_mtime_ns
        again = short(out, ws).run()
        assert (out / "adapter_model.safetensors").stat().st_mtime_ns == weights
        assert again.results == first.results
        with pytest.raises(UsageError, match="another fine-tuning"):
            short(out, ws, seed=1).run()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "x").write_text("")
        with pytest.raises(UsageError, match="not empty"):
            short(tmp_path / "full", ws).run()

    def test_a_folder_in_which_nothing_was_learned_is_taken_over(self, tmp_path, ws, monkeypatch):
        from snellen.tuning import sft, trainer

        def broken(*_, **__):
            raise RuntimeError("out of luck")

        real = trainer.run_stage
        monkeypatch.setattr(sft, "run_stage", broken)
        with pytest.raises(Unsupported, match="out of luck"):
            short(tmp_path / "out", ws).run()
        monkeypatch.setattr(sft, "run_stage", real)
        assert short(tmp_path / "out", ws, seed=1).run()

    @pytest.mark.exhaustive
    def test_in_half_precision(self, tmp_path, ws):
        """As on a GPU: what learns does so in full precision, what is asked meanwhile is no error, and
        what is
        kept is of the precision that it came in.
        """
        for recipe, settings in (("projector", {"bf16": True}),):
            out = tmp_path / recipe
            found = short(
                out,
                ws,
                recipe=recipe,
                model=f"hf:{half(tmp_path)}?dtype=bfloat16",
                settings={"max_steps": 2, **settings},
                train_limit=168,
            ).run()
            held = yaml.safe_load((out / MANIFEST).read_text())
            shares = [row["held_out_accuracy"] for row in held["log"][recipe] if "held_out_accuracy" in row]
            assert min(shares) > 0.3
            assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {
                torch.bfloat16
            }
            assert found.results[0].after > 0.3

    def test_it_changes_nothing_of_the_model_itself(self, tmp_path, ws):
        before = MODELS.make("pico:llava-skewed").identity()
        short(tmp_path / "out", ws, recipe="full").run()
        assert MODELS.make("pico:llava-skewed").identity() == before

    def test_the_card(self, tmp_path, ws):
        from huggingface_hub import ModelCard

        out = tmp_path / "out"
        found = short(out, ws).run()
        card = ModelCard.load(out / "README.md")
        results = {one.metric_name: one.metric_value for one in card.data.eval_results}
        assert results["accuracy, closed-set"] == round(100 * found.results[0].after, 2)
        assert card.data.library_name == "peft"
        assert found.results[0].cells[2] in card.text
        assert str(tmp_path) not in (out / "adapter_config.json").read_text()
        assert not (out / ".eval_results").exists()

    def test_results_for_the_hub(self, tmp_path, ws):
        from dataclasses import replace

        from huggingface_hub import parse_eval_result_entries

        from snellen.tuning.card import write_card

        found = short(tmp_path / "out", ws).run()
        result = replace(found.results[0], task="hub:org/data?split=test, closed-set")
        source = {"data": "x", "samples": 2, "examples": 3}
        options = {"settings": {}, "lora": {}, "train_parts": [], "augment": [], "seed": 0, "split_seed": 0}
        facts = {"trained": 1, "parameters": 2, "examples": [source], "options": options}
        write_card(
            tmp_path,
            base="org/base",
            on_hub="org/base",
            complete=True,
            recipe=RECIPES["lora"],
            results=[result],
            weakest=None,
            facts=facts,
            notes=[],
            model="hf:x",
        )
        (entry,) = parse_eval_result_entries(
            yaml.safe_load((tmp_path / ".eval_results" / "org_data.yaml").read_text())
        )
        assert (entry.dataset_id, entry.value) == ("org/data", round(100 * result.after, 2))

    @pytest.mark.exhaustive
    def test_an_adapter_of_another_base(self, tmp_path, ws):
        out = tmp_path / "out"
        short(out, ws).run()
        other = MODELS.make(f"hf:{tiny.save('llava', tmp_path / 'm')}?adapter={out}")
        with pytest.raises(ModelError, match="different weights"):
            other.load()
        config = json.loads((out / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(tmp_path / "m")
        (out / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match="different weights"):
            MODELS.make(f"hf:{out}").load()
        del config["base_model_name_or_path"]
        (out / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match="names no base"):
            MODELS.make(f"hf:{out}")
        with pytest.raises(Unsupported, match="Merge it first"):
            Tuning(
                model=f"hf:{tmp_path / 'm'}?adapter={out}",
                data="chart:shapes",
                out=tmp_path / "o",
                workspace=tmp_path,
            )

    def test_an_adapter_is_found_wherever_it_lies(self, tmp_path, ws, monkeypatch):
        """Its base by a path that holds from everywhere; named both, the base may lie elsewhere."""
        from snellen.models.pico import WEIGHTS

        shutil.copytree(WEIGHTS / "llava-skewed", tmp_path / "base")
        monkeypatch.chdir(tmp_path)
        short(Path("out"), ws, model="hf:base").run()
        card = (tmp_path / "out" / "README.md").read_text()
        assert "base_model" not in card
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        shutil.move(tmp_path / "out", "moved")
        MODELS.make("hf:moved").load()
        shutil.move(tmp_path / "base", tmp_path / "other")
        with pytest.raises(ModelError, match="adapter=moved"):
            MODELS.make("hf:moved")
        MODELS.make("hf:../other?adapter=moved").load()

    def test_a_head_runs_no_code_of_its_folder(self, tmp_path, ws):
        out = tmp_path / "out"
        short(out, ws, recipe="head", train_limit=336, settings={}).run()
        facts = json.loads((out / "head.json").read_text())
        evil = tmp_path / "evil"
        evil.mkdir()
        (evil / "config.json").write_text(
            json.dumps({"auto_map": {"AutoConfig": "evil.Evil"}, "model_type": "evil"})
        )
        (evil / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').write('x')\nclass Evil: pass\n")
        for base, options in (
            (f"hf:{evil}", {"trust_remote_code": True}),
            (f"hf:{evil}?trust_remote_code=true", {}),
        ):
            (out / "head.json").write_text(json.dumps({**facts, "base": base, "options": options}))
            with pytest.raises(ModelError):
                MODELS.make(f"head:{out}")
        assert not (tmp_path / "ran").exists()
        (out / "head.json").write_text(json.dumps({**facts, "base": "pico:llava"}))
        with pytest.raises(ModelError, match="different weights"):
            MODELS.make(f"head:{out}")
