"""Fine-tuning that is interrupted, killed, or runs out of disk: it goes on, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from helpers import TESTS, until
from snellen.errors import Stopped
from snellen.tuning.trainer import last_checkpoint
from snellen.tuning.tuning import MANIFEST, Tuning
from tuned import short

pytestmark = pytest.mark.slow


def longer(out: Path, workspace: Path) -> Tuning:
    """A tuning in which there is time to be killed."""
    return short(out, workspace, recipe="full", settings={"max_steps": 9, "save_steps": 3, "eval_steps": 9})


class TestInterrupted:
    def test_killed_it_goes_on(self, tmp_path, ws):
        """Killed in the middle, it ends with the very weights of one that was not. (All weights: names in a
        checkpoint's file are not those of the modules.)
        """
        out = tmp_path / "out"
        folders = [str(TESTS), str(Path(__file__).parent)]
        script = f"import sys; sys.path[:0] = {folders!r}; from pathlib import Path\n"
        script += "from test_interrupted import longer; longer(*map(Path, sys.argv[1:])).run()"
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(out), str(ws)], stderr=subprocess.DEVNULL
        )
        folder = out / "checkpoints" / "full"
        try:
            until((folder / "checkpoint-3" / "trainer_state.json").exists)
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (out / "model.safetensors").exists()
        torso = folder / "checkpoint-8"  # killed in the middle of a write
        shutil.rmtree(torso, ignore_errors=True)
        torso.mkdir()
        (torso / "model.safetensors").write_bytes(b"x")
        longer(out, ws).run()
        longer(tmp_path / "whole", ws).run()
        one, other = (load_file(f / "model.safetensors") for f in (out, tmp_path / "whole"))
        assert one.keys() == other.keys()
        for key, value in one.items():
            torch.testing.assert_close(value, other[key], rtol=1e-3, atol=5e-4)  # the last digits vary

    @pytest.mark.exhaustive
    def test_an_ended_stage_is_not_gone_on_with(self, tmp_path, ws, monkeypatch):
        """Killed in the second stage, in the middle of an epoch of the first: the first takes no step
        more.
        """
        from snellen.tuning import sft, trainer

        how = {"recipe": "two-stage", "settings": {"max_steps": 10}, "seed": 3}
        whole = short(tmp_path / "whole", ws, **how).run()
        real = trainer.run_stage

        def killed(trainer, folder, stage, *args, **kwargs):
            if stage == "decoder":
                raise KeyboardInterrupt
            return real(trainer, folder, stage, *args, **kwargs)

        monkeypatch.setattr(sft, "run_stage", killed)
        with pytest.raises(KeyboardInterrupt):
            short(tmp_path / "out", ws, **how).run()
        monkeypatch.setattr(sft, "run_stage", real)
        short(tmp_path / "out", ws, **how).run()
        one, other = (load_file(tmp_path / f / "model.safetensors") for f in ("out", "whole"))
        assert all(torch.equal(value, other[key]) for key, value in one.items())
        held = yaml.safe_load((tmp_path / "out" / MANIFEST).read_text())
        assert max(row["step"] for row in held["log"]["projector"]) == 3
        assert whole.facts["effective"]["projector"]["steps"] == 3

    def test_asked_to_stop_it_keeps_what_it_has(self, tmp_path, ws):
        """Ctrl+C once: the step is ended, a checkpoint written; the same command goes on from there."""

        def interrupt(stage, step, of, known):
            if stage == "lora" and step == 3 and not known:
                os.kill(os.getpid(), signal.SIGINT)

        how = {"settings": {"max_steps": 6, "save_steps": 500}}
        with pytest.raises(Stopped, match="after step [34] of 6"):
            short(tmp_path / "out", ws, **how, watch=interrupt).run()
        steps = []

        def watch(stage, step, of, known):
            steps.extend([step] if stage == "lora" and not known else [])

        short(tmp_path / "out", ws, **how, watch=watch).run()
        assert steps[-1] == 6
        assert steps[0] in (4, 5)

    def test_a_torso_is_no_checkpoint(self, tmp_path):
        for number, text in ((2, "{}"), (10, "{}"), (20, '{"tru')):
            (tmp_path / f"checkpoint-{number}").mkdir()
            (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text(text)
        (tmp_path / "checkpoint-30").mkdir()
        assert last_checkpoint(tmp_path).name == "checkpoint-10"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]
        assert last_checkpoint(tmp_path / "nowhere") is None

    def test_a_full_disk_keeps_the_last_checkpoint(self, tmp_path, ws, monkeypatch):
        from transformers import Trainer

        real, calls = Trainer._save_rng_state, []

        def full(self, folder):
            calls.append(folder)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(self, folder)

        monkeypatch.setattr(Trainer, "_save_rng_state", full)
        with pytest.raises(Stopped, match="No space left") as caught:
            short(tmp_path / "out", ws).run()
        assert "checkpoint-2 is kept" in str(caught.value)
        assert "rerun the same command" in str(caught.value)
        # With room it goes on from there.
        monkeypatch.setattr(Trainer, "_save_rng_state", real)
        steps = []

        def watch(stage, step, of, known):
            steps.extend([step] if stage == "lora" and not known else [])

        short(tmp_path / "out", ws, watch=watch).run()
        assert steps == [3, 4, 5, 6]

    @pytest.mark.exhaustive
    def test_a_real_full_disk(self, tmp_path, ws):
        script = (
            "import resource, signal\nsignal.signal(signal.SIGXFSZ, "
            "signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))\nfrom "
            "snellen import cli\ncli.main()\n"
        )
        given = "tune pico:llava-skewed --data chart:shapes?n=28 --train-limit 56 --recipe full --quiet"
        done = subprocess.run(
            [
                *(sys.executable, "-c", script, *given.split(), "-o", str(tmp_path / "out")),
                *("--workspace", str(ws)),
            ],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 1, done.stderr
        assert "A checkpoint cannot be written" in done.stderr
        assert "Free some space" in done.stderr
        assert "Traceback" not in done.stderr

    def test_too_little_memory(self, tmp_path, ws, monkeypatch):
        from transformers import LlamaModel

        real = LlamaModel.forward

        def hungry(self, *args, **kwargs):
            if self.training:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            return real(self, *args, **kwargs)

        monkeypatch.setattr(LlamaModel, "forward", hungry)
        with pytest.raises(Stopped, match="per_device_train_batch_size=1"):
            short(tmp_path / "out", ws).run()
