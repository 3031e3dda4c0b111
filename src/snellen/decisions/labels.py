"""Labels that are probably wrong: images whose label several models contradict in agreement."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen._util.files import write_atomic
from snellen._util.words import counted
from snellen.errors import SnellenError, UsageError, require
from snellen.images import Image
from snellen.images.perceptual import look, near_pairs
from snellen.metrics.stats import Estimate
from snellen.runs.run import Run

if TYPE_CHECKING:
    import numpy as np

    #: [images, classes]: rows sum to 1.
    Chances = np.ndarray[Any, Any]

__all__ = ["Alike", "LabelReview", "Suspect", "review_labels", "write_corrections"]

#: What a model that answers with a class leaves to all others; and the scale of cosines, as in CLIP.
LEFT, COSINES = 0.05, 100.0
#: The fewest images from which to say that two models err alike.
ENOUGH = 5
#: How often images are drawn again for the interval of the share of wrong labels, and its ends.
RESAMPLED, ENDS = 200, (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """An image whose label several models contradict in agreement.

    Attributes:
        label: as it is; ``suggested``: what most of them say.
        agreeing: how many of ``of`` models say so.
        quality: confident learning's score of the label, from 0 (surely wrong) to 1.
        image: SHA-256 of its first image.
    """

    id: str
    label: str
    suggested: str
    agreeing: int
    of: int
    quality: float
    image: str = ""


@dataclass(frozen=True, kw_only=True)
class Alike:
    """How often two runs err alike: of images where both contradict a label that another run supports, the
    share on which they say the same; ``expected`` if they erred independently.
    """

    first: str
    second: str
    n: int
    share: float
    expected: float


@dataclass(frozen=True, kw_only=True)
class LabelReview:
    """What models say about labels.

    Attributes:
        classes: that labels may be.
        suspects: most suspicious first.
        wrong: the estimated share of wrong labels, if models err independently of each other; None if it
            cannot be estimated.
        duplicates: (id, label, id, label) of images that look alike and have different labels.
        unfit: ids of images on whose class no two models agree.
    """

    data: str
    fingerprint: str
    runs: tuple[str, ...]
    classes: tuple[str, ...]
    n: int
    suspects: tuple[Suspect, ...]
    contradicted: int
    wrong: Estimate | None
    alike: tuple[Alike, ...]
    duplicates: tuple[tuple[str, str, str, str], ...] = ()
    unfit: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The result in words."""
        text = f"{self.contradicted:,} of {self.n:,} labels are contradicted by models in agreement."
        if self.wrong is not None:
            low, value, high = (100 * x for x in (self.wrong.low, self.wrong.value, self.wrong.high))
            text += f" An estimated {value:.1f}% of the labels are wrong ({low:.1f} to {high:.1f})"
            text += ", if models err independently"
            worst = max((p for p in self.alike if p.n >= ENOUGH), key=lambda p: p.share, default=None)
            if worst is not None and worst.share > 2 * worst.expected:
                text += (
                    f". But {worst.first} and {worst.second} make the same mistakes: of {worst.n} images "
                    "whose label a third model supports and they contradict, they say the same on "
                    f"{100 * worst.share:.0f}% (by chance {100 * worst.expected:.0f}%). Look before you "
                    "correct"
                )
            text += "."
        return text

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "sentence": self.sentence}


def review_labels(runs: Sequence[Run], most: int = 50) -> LabelReview:
    """Find labels that are probably wrong.

    A label is contradicted if at least two runs, and more than say the label, say the same other class.
    Contradicted labels are ordered by confident learning's quality of a label (Northcutt et al., arXiv
    1911.00068, through cleanlab) under the mean of the runs' chances: of rank's scores, of votes, or of
    the answer. The share of wrong labels is that of its confident joint.

    Args:
        most: the number of suspects to return.

    Raises:
        UsageError: fewer than two runs; runs on different data, or of one model; or none that classify.
        MissingExtra: cleanlab is not installed.
    """
    require("cleanlab", "labels", "Finding wrong labels")
    if len(runs) < 2:
        raise UsageError("Labels are judged by at least two runs of different models. See: snellen ls runs")
    _refuse_mismatch(runs)
    tables = [{row["id"]: row for row in run.findings()} for run in runs]
    ids = [
        id_ for id_, row in tables[0].items() if all(id_ in t for t in tables) and row["label"] is not None
    ]
    if not ids:
        raise UsageError("The runs share no samples with labels.")
    classes = list(dict.fromkeys([*runs[0].manifest.data.labels, *(tables[0][id_]["label"] for id_ in ids)]))
    number = {name: k for k, name in enumerate(classes)}
    given = [tables[0][id_]["label"] for id_ in ids]
    chances = _mean([_chances([table[id_] for id_ in ids], number) for table in tables])
    quality = _quality([number[label] for label in given], chances)
    said = [[table[id_]["prediction"] for table in tables] for id_ in ids]
    suspects, unfit = _contradicted(ids, tables, said, quality, number)
    suspects.sort(key=lambda s: (s.quality, s.id))
    duplicates, notes = _duplicates(runs[0], tables[0], ids)
    if (total := runs[0].manifest.data.n) > len(ids):
        unfinished = [run.id for run in runs if run.status != "finished"]
        more = f" Complete them first: snellen resume {unfinished[0]}" if unfinished else ""
        notes = (
            *notes,
            f"{len(ids):,} of {total:,} samples were answered by all runs; only these are judged.{more}",
        )
    return LabelReview(
        data=runs[0].data,
        fingerprint=runs[0].manifest.data.fingerprint,
        runs=tuple(run.id for run in runs),
        classes=tuple(classes),
        n=len(ids),
        suspects=tuple(suspects[:most]),
        contradicted=len(suspects),
        wrong=_share([number[label] for label in given], chances),
        alike=tuple(_alike(runs, said, given)),
        duplicates=duplicates,
        unfit=tuple(unfit),
        notes=notes,
    )


def _contradicted(
    ids: Sequence[str],
    tables: Sequence[Mapping[str, Mapping[str, Any]]],
    said: Sequence[Sequence[str]],
    quality: Sequence[float],
    number: Mapping[str, int],
) -> tuple[list[Suspect], list[str]]:
    """Return the images whose label runs contradict in agreement, and ids of those on which no two agree."""
    suspects, unfit = [], []
    for place, id_ in enumerate(ids):
        label, images = tables[0][id_]["label"], tables[0][id_]["images"]
        votes = Counter(name for name in said[place] if name in number)
        supporting = votes.pop(label, 0)
        ((other, count),) = votes.most_common(1) or [("", 0)]
        if count >= 2 and count > supporting:
            suspects.append(
                Suspect(
                    id=id_,
                    label=label,
                    suggested=other,
                    agreeing=count,
                    of=len(tables),
                    quality=quality[place],
                    image=images[0] if images else "",
                )
            )
        elif not supporting and count < 2:
            unfit.append(id_)
    return suspects, unfit


def _refuse_mismatch(runs: Sequence[Run]) -> None:
    for run in runs:
        if not run.metrics.n:
            raise UsageError(f"{run.id} has no results yet ({run.status}). Resume it with: {run.resuming}")
        if not run.classifies:
            raise UsageError(f"{run.id} predicts no classes, so it says nothing about labels.")
        if run.manifest.data.fingerprint != runs[0].manifest.data.fingerprint:
            raise UsageError(f"{runs[0].id} and {run.id} were evaluated on different data.")
    models: dict[str, Run] = {}
    for run in runs:
        identity = json.dumps(run.manifest.model.identity, sort_keys=True)
        if identity in models:
            raise UsageError(
                f"{models[identity].id} and {run.id} are runs of one model, whose mistakes would count "
                "twice. Leave one out."
            )
        models[identity] = run


def _chances(rows: Sequence[Mapping[str, Any]], number: Mapping[str, int]) -> Chances:
    """Return the chances of classes that a run's answers express: of scores, votes, or the prediction."""
    import numpy as np
    from scipy.special import softmax

    chances = np.full((len(rows), len(number)), 1 / len(number))
    for place, row in enumerate(rows):
        scores, votes = row["details"].get("scores"), row["details"].get("votes")
        shares = np.zeros(len(number))
        if isinstance(scores, dict) and scores and row["ranking"]:
            known = {name: value for name, value in scores.items() if name in number}
            scale = COSINES if all(abs(value) <= 1 for value in known.values()) else 1.0
            for name, share in zip(known, softmax([scale * v for v in known.values()]), strict=True):
                shares[number[name]] = share
        elif votes:
            for name, count in Counter(vote for vote in votes if vote in number).items():
                shares[number[name]] = count
        elif row["prediction"] in number:
            shares[number[row["prediction"]]] = 1
        if shares.sum() > 0:
            chances[place] = (1 - LEFT) * shares / shares.sum() + LEFT / len(number)
    return chances


def _mean(chances: Sequence[Chances]) -> Chances:
    import numpy as np

    mean: Chances = np.mean(chances, axis=0)
    return mean


def _quality(given: Sequence[int], chances: Chances) -> list[float]:
    import numpy as np
    from cleanlab.rank import get_label_quality_scores

    scores = get_label_quality_scores(np.array(given), chances, method="normalized_margin")
    return [float(score) for score in scores]


def _share(given: Sequence[int], chances: Chances) -> Estimate | None:
    """Estimate the share of wrong labels by the confident joint, with an interval from images drawn again."""
    import numpy as np

    labels = np.array(given)
    value = _off_diagonal(labels, chances)
    if math.isnan(value):
        return None
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLED):
        places = rng.integers(0, len(labels), len(labels))
        drawn.append(_off_diagonal(labels[places], chances[places]))
    low, high = np.nanpercentile(drawn, ENDS)
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def _off_diagonal(labels: Any, chances: Chances) -> float:
    import numpy as np
    from cleanlab.count import estimate_joint

    present = np.unique(labels)
    if len(present) < 2:
        return math.nan
    renumbered = np.searchsorted(present, labels)
    kept = chances[:, present]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that no model is sure about
        joint = estimate_joint(renumbered, kept / kept.sum(1, keepdims=True))
    return float(1 - np.trace(joint))


def _alike(runs: Sequence[Run], said: Sequence[Sequence[str]], given: Sequence[str]) -> list[Alike]:
    pairs = []
    for a, b in combinations(range(len(runs)), 2):
        both = [
            (row[a], row[b])
            for row, label in zip(said, given, strict=True)
            if row[a] and row[b] and label not in (row[a], row[b]) and label in row
        ]
        n = len(both)
        firsts, seconds = (Counter(pair[k] for pair in both) for k in (0, 1))
        expected = sum(firsts[name] * seconds[name] for name in firsts) / n**2 if n else 0.0
        share = sum(x == y for x, y in both) / n if n else 0.0
        pairs.append(Alike(first=runs[a].model, second=runs[b].model, n=n, share=share, expected=expected))
    return pairs


def _duplicates(
    run: Run, rows: Mapping[str, Mapping[str, Any]], ids: Sequence[str]
) -> tuple[tuple[tuple[str, str, str, str], ...], tuple[str, ...]]:
    """Find images that look alike and have different labels, by the previews in the workspace."""
    looks: list[tuple[str, int]] = []
    missing = 0
    for id_ in ids:
        images = rows[id_]["images"]
        if not images:
            continue
        try:
            seen = look(Image.from_path(run.store.preview_path(images[0])))
        except (SnellenError, ImportError):
            missing += 1
            continue
        if seen is not None:
            looks.append((id_, seen))
    alike = ((looks[i][0], looks[j][0]) for i, j in near_pairs([seen for _, seen in looks]))
    labeled = ((a, rows[a]["label"], b, rows[b]["label"]) for a, b in alike)
    pairs = tuple(pair for pair in labeled if pair[1] != pair[3])
    notes = (
        (f"{counted(missing, 'image')} without a preview, so no copies of them were looked for.",)
        if missing
        else ()
    )
    return pairs, notes


def write_corrections(review: LabelReview, path: Path) -> None:
    """Write the suspects as a file to edit, for ``-D corrections=FILE``: set each ``action`` to keep,
    correct, drop or ambiguous. As written (``review``), nothing is changed.

    Raises:
        OSError: it cannot be written.
    """
    rows = [
        {"id": s.id, "label": s.label, "image": s.image, "action": "review", "correct": s.suggested}
        for s in review.suspects
    ]
    content = {"data": review.data, "fingerprint": review.fingerprint, "corrections": rows}
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
