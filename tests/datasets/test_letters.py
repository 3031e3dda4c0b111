"""Charts of letters."""

from __future__ import annotations

import pytest

from snellen.datasets.base import DATASETS
from snellen.errors import BadOption


class TestLetters:
    def test_every_letter_at_every_size_before_the_next_contrast(self):
        from collections import Counter

        from snellen.datasets.letters import CONTRASTS, LETTERS, SIZES

        data = DATASETS.make("chart:letters?n=480")
        samples = [data.sample(i, data.labels, None) for i in range(480)]
        assert Counter((s.label, s.meta["size"], s.meta["contrast"]) for s in samples) == {
            (letter, size, contrast): 1 for letter in LETTERS for size in SIZES for contrast in CONTRASTS
        }
        assert len({s.id for s in samples}) == 480

    def test_what_is_drawn_is_as_high_and_as_dark_as_it_says(self):
        import numpy as np

        data = DATASETS.make("chart:letters?n=480")
        for i in range(0, 480, 7):
            sample = data.sample(i, data.labels, None)
            pixels = np.asarray(sample.images[0].pixels)[..., 0].astype(float)
            dark = pixels < 230 - 0.5 * (230 - pixels.min())
            height = np.flatnonzero(dark.any(1))
            assert abs(height[-1] - height[0] + 1 - sample.meta["height"]) <= 2.5
            if sample.meta["height"] > 40:
                assert (230 - pixels.min()) / 230 == pytest.approx(sample.meta["contrast"], abs=0.01)

    def test_letters_differ(self):
        from snellen.datasets.letters import LETTERS, draw_letter

        pictures = {draw_letter(letter, 0.5, 1.0, "k", 64).tobytes() for letter in LETTERS}
        assert len(pictures) == len(LETTERS) == 12

    def test_refusals(self):
        with pytest.raises(BadOption, match="ask='color'"):
            DATASETS.make("chart:letters?ask=color")
