"""Find the sharing strategy that leaves a model's answers unchanged, by a trial once per model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from snellen.errors import reason_of
from snellen.images import Image, encode
from snellen.models.huggingface.prefix_cache.decode import FEWEST, Suffixes
from snellen.models.huggingface.prefix_cache.inputs import ALONG
from snellen.models.huggingface.prefix_cache.packed import PackedSuffixes
from snellen.models.huggingface.prefix_cache.prefill import CannotShare, keep
from snellen.models.huggingface.prefix_cache.rows import BatchedSuffixes
from snellen.models.huggingface.prefix_cache.scheduler import Question, Scheduler
from snellen.models.huggingface.prefix_cache.shared_model import SharedModel
from snellen.models.huggingface.prefix_cache.trie import common
from snellen.types import Message

if TYPE_CHECKING:
    import torch

__all__ = ["BRANCHES", "Findings", "Strategy", "pictures", "questions", "try_sizes", "try_ways"]


class Strategy(StrEnum):
    """How questions about an image share its computation, from most to least."""

    PACKED = "packed"  #: one prefix, all suffixes in one row under a block mask
    ROWS = "rows"  #: one prefix, forked into a row per suffix
    VISION = "vision"  #: the image is encoded once, each prompt computed in full
    PLAIN = "plain"  #: nothing is shared


BRANCHES: dict[Strategy, type[Suffixes]] = {Strategy.PACKED: PackedSuffixes, Strategy.ROWS: BatchedSuffixes}

#: The tolerance for sharing, in multiples of the model's own padding noise and of rounding error.
NOISE, ROUNDINGS = 2.0, 3.0
#: Next tokens that are compared at the end of each prompt.
COMPARED = 12


@dataclass(frozen=True)
class Findings:
    """The result of a self-check.

    Attributes:
        way: the first exact strategy.
        noise: the root mean square difference between a prompt's logits alone and in a padded batch, over
            the logits' standard deviation, for the worst prompt: the model's own numerical noise.
        tried: the same difference for each strategy compared with single prompts; or why it failed.
        flips: the number of next tokens, of ``decisions`` at the ends of prompts, at which a prompt in a
            padded batch decides otherwise than alone. Half precision rounds, so that there may be some.
        graphs: the difference, as in ``tried``, of decoding steps that are recorded as CUDA graphs; or why
            none are.
        mixes: whether pictures of different sizes leave each other's answers as they are in a batch.
        mixed: the difference that they make, as in ``tried``; or why they cannot be in one batch.
    """

    way: Strategy
    noise: float
    tried: Mapping[str, float | str]
    flips: int = 0
    decisions: int = 0
    graphs: float | str = "not tried"
    mixes: bool = True
    mixed: float | str = "not tried"

    def __str__(self) -> str:
        reasons = [
            f"{way} differs by {reason:.1e}" if isinstance(reason, float) else f"{way}: {reason}"
            for way, reason in self.tried.items()
            if way != self.way
        ]
        does = {
            Strategy.PACKED: "each image is encoded once, with its questions packed behind it",
            Strategy.ROWS: "each image is encoded once, with its questions forked from it",
            Strategy.VISION: "images are encoded once, but prompts are computed in full",
            Strategy.PLAIN: "nothing is shared between an image's questions",
        }
        why = f" ({'; '.join(reasons)}; padding alone {self.noise:.1e})" if reasons else ""
        how = f"others change it by {self.mixed:.1e}" if isinstance(self.mixed, float) else self.mixed
        sizes = "" if self.mixes else f"; only pictures of one size are put into a batch ({how})"
        return f"{does[self.way]}{why}{sizes}"


def pictures() -> list[Image]:
    """Return two different pictures of colored clouds, of different sizes."""
    return [_clouds(1, (224, 224)), _clouds(2, (480, 208))]


def _clouds(seed: int, size: tuple[int, int]) -> Image:
    import numpy as np
    from PIL import Image as pillow

    colors = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    data = encode(pillow.fromarray(colors).resize(size, pillow.Resampling.BICUBIC))
    return Image(lambda: data, f"self-check {seed}")


def questions() -> list[str]:
    """Return texts with a common beginning and ends of different lengths."""
    things = ("cat", "fire engine that is parked before a house", "one of 12 tyres")
    return [f"Answer the question in one word: yes or no. Is the {thing} in this image?" for thing in things]


Tensors = Mapping[str, Any]


def try_ways(
    model: Any,
    asked: Sequence[Question],
    own: Sequence[Tensors],
    padded: Tensors,
    mixed: Callable[[], Tensors],
    vision: Callable[[Tensors, int], Tensors],
    images: int,
    budget: Callable[[], int],
    unrecorded: str,
) -> Findings:
    """Return the first exact strategy.

    A strategy is exact if its logits differ from those of single prompts by at most ``NOISE`` times the
    difference that padding makes, or by rounding error.

    Args:
        asked: questions that would share, the same number about each of several images.
        own: for each of them, the processor's tensors of its prompt alone.
        padded: those of the first image's prompts, in one left-padded batch.
        mixed: those of the first prompts about two images of different sizes, likewise.
        vision: turns a batch with this many prompts about one image into one with its features computed once.
        images: the number of images to prefill together.
        unrecorded: why recorded steps are not tried; empty if they are.
    """
    # Long: each attempt is compared with the same reference, under the same tolerance.
    import torch

    ends = torch.cat([last_logits(model, tensors, COMPARED) for tensors in own])
    alone = ends[:, -1]
    spread = float(alone.std())

    def apart(values: torch.Tensor, first: int | None = None) -> float:
        return beyond(values.float(), alone[:first]) / spread

    batched = last_logits(model, padded, COMPARED)
    flipped = batched.argmax(-1) != ends[: len(batched)].argmax(-1)
    batch = batched[:, -1]
    noise = apart(batch, len(batch))
    allowed = tolerance(noise, model)
    changed = outcome(lambda: beyond(logits(model, mixed()), alone[:: len(batch)]) / spread)
    mixes = leaves_alone(changed, noise, model)
    tried: dict[str, float | str] = {}

    def exact(way: Strategy, attempt: Callable[[], float]) -> bool:
        tried[way] = error = outcome(attempt)
        return isinstance(error, float) and error <= allowed

    def findings(way: Strategy) -> Findings:
        return Findings(way, noise, tried, int(flipped.sum()), flipped.numel(), mixes=mixes, mixed=changed)

    def shared(branches: type[Suffixes], *, graphs: bool = False) -> float:
        together = images if mixes else 1
        return apart(continued(Scheduler(model, branches, together, budget, graphs=graphs), asked))

    def recorded(found: Findings) -> Findings:
        if unrecorded:
            return replace(found, graphs=unrecorded)
        error = outcome(partial(shared, BRANCHES[found.way], graphs=True))
        right = isinstance(error, str) or error <= allowed
        return replace(found, graphs=error if right else f"recorded steps differ by {error:.1e}")

    if (seen := foresight(model, asked, own) / spread) > max(rounding_of(model), 1e-6):
        tried[Strategy.PACKED] = f"a prefix attends to what follows it, and differs by {seen:.1e}"
    else:
        for way, branches in BRANCHES.items():
            if exact(way, partial(shared, branches)):
                return recorded(findings(way))
    if exact(Strategy.VISION, lambda: apart(logits(model, vision(padded, len(batch))), len(batch))):
        return findings(Strategy.VISION)
    return findings(Strategy.PLAIN)


def rounding_of(model: Any) -> float:
    """Return what rounding may change, in standard deviations of logits."""
    import torch

    return float(ROUNDINGS * torch.finfo(model.dtype).eps)


def tolerance(noise: float, model: Any) -> float:
    """Return the difference that is taken for none, by that which padding makes."""
    return max(NOISE * noise, rounding_of(model), 1e-5)


def leaves_alone(changed: float | str, noise: float, model: Any) -> bool:
    """Return whether pictures of different sizes, by what a batch of them changes, may be in one."""
    return isinstance(changed, float) and changed <= NOISE * tolerance(noise, model)


def beyond(values: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the root mean square difference of the worst row."""
    return float((values - reference).square().mean(-1).sqrt().max())


def try_sizes(model: SharedModel) -> bool:
    """Return whether pictures of different sizes leave each other alone, without the rest of the check."""
    import torch

    clouds = pictures()
    prompts = [model.prompt([Message("user", (clouds[0], text))]) for text in questions()]
    same, other = ([(prompt, (cloud,)) for prompt in prompts] for cloud in clouds)
    pair = [same[0], other[0]]

    def batch(shown: Sequence[tuple[str, Sequence[Image]]]) -> torch.Tensor:
        return logits(model.decoder, model.on_device(model.process_all(shown, "left")))

    with torch.inference_mode():
        alone = torch.cat([batch([shown]) for shown in pair])
        spread = float(alone.std())
        noise = beyond(batch(same)[:1], alone[:1]) / spread
        changed = outcome(lambda: beyond(batch(pair), alone) / spread)
    return leaves_alone(changed, noise, model.decoder)


def outcome(attempt: Callable[[], float]) -> float | str:
    """Return a strategy's difference, or why it cannot be used: any error."""
    try:
        return attempt()
    except CannotShare as reason:
        return str(reason)
    except Exception as failure:
        return reason_of(failure)


def last_logits(model: Any, tensors: Tensors, count: int) -> torch.Tensor:
    """Return the logits at the last ``count`` positions, [R, count, V], in float32."""
    rows: torch.Tensor = model(**tensors, **keep(model, count), use_cache=False).logits[:, -count:].float()
    return rows


def logits(model: Any, tensors: Tensors, back: int = 1) -> torch.Tensor:
    """Return the logits at position ``back`` from the end, [R, V], in float32."""
    return last_logits(model, tensors, back)[:, 0]


def foresight(model: Any, asked: Sequence[Question], own: Sequence[Tensors]) -> float:
    """Return the difference between the logits at the end of two prompts' common prefix: 0 for a causal
    model. Both are cut to the same length, so that they run through the same kernels.
    """
    pair = [asked[0].ids, asked[1].ids]
    length, shared = min(map(len, pair)), common(pair)
    cut = [{k: v[:, :length] if k in ALONG else v for k, v in tensors.items()} for tensors in own[:2]]
    first, other = (logits(model, tensors, length - shared + 1) for tensors in cut)
    return float((first - other).abs().max())


def continued(sharing: Scheduler, asked: Sequence[Question]) -> torch.Tensor:
    """Return the logits after each question, with its last token appended like a generated one."""
    import torch

    rows: dict[int, torch.Tensor] = {}
    stems = [replace(question, ids=question.ids[:-1]) for question in asked]
    for prefix, members in sharing.prefixed(stems, 1):
        branches = [(image, stems[i].ids[prefix.length :]) for image, i in members]
        for chunk in sharing.branches.cut(prefix, branches, sharing.budget(), 1):
            suffixes = sharing.branches(prefix, [branches[i] for i in chunk], sharing.graphs)
            suffixes.plant()
            places = [members[i][1] for i in chunk]
            tokens = [asked[i].ids[-1] for i in places]
            if sharing.graphs is None:
                grown = suffixes.grow(tokens, range(len(chunk)))
            else:
                suffixes.prepare(FEWEST)
                grown = suffixes.repeated(tokens)
            rows |= zip(places, grown, strict=True)
    return torch.stack([rows[i] for i in range(len(asked))])
