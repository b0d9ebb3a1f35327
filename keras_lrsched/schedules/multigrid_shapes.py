"""Multigrid training of video models: short, small clips in large batches first (Wu et al. 2020)."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules._arrays import to_float, to_int
from keras_lrsched.schedules.piecewise_constant import PiecewiseConstant, piece
from keras_lrsched.schedules.schedule import Schedule

LONG_CYCLE = ((0.25, 0.5**0.5), (0.5, 0.5**0.5), (0.5, 1.0), (1.0, 1.0))
"""Frames and crop of the four shapes of a long cycle, as fractions of the full ones."""
SHORT_CYCLE = (0.5, 0.5**0.5)
"""Crops of the first two of three updates, as fractions of the full one; the third has that of the long cycle."""


class Shape(NamedTuple):
    """A mini-batch: its size as a multiple of the base one, the frames of a clip, the pixels of a side."""

    batch_factor: int
    frames: int
    crop: int


@register(
    "multigrid",
    title="multigrid training",
    paper="arXiv:1912.00998",
    code=("facebookresearch/SlowFast",),
    checked="vectors",
    against="the official code, `multigrid.py`, which was run, for epochs and learning rates",
    deviations="the short cycle runs through; the official code restarts it with each epoch",
    kind="shape of the batch",
)
class MultigridShapes(PiecewiseConstant):
    """The shape of each mini-batch, in two interlocked cycles. Not a learning rate: the value is the batch size as a
    multiple of the base one; `shape(step)` gives frames and crop too.

    Long cycle: within each stage of the learning rate, (8 B, T/4, S/sqrt(2)), (4 B, T/2, S/sqrt(2)), (2 B, T/2, S),
    (B, T, S), for epochs in proportion to the average batch size. Short cycle: crops S/2, S/sqrt(2) and that of the long
    cycle in turn, update by update, with the batch in inverse proportion to frames * crop^2. After the last milestone
    comes a fine-tuning at the full shape, which saves as many updates as the stages before; half of it at the last learning
    rate, half at a gamma of it. All epochs are then scaled to `epoch_factor` times those of the run that it replaces.

    Args:
        frames: T, the frames of a full clip, a positive integer.
        crop: S, the pixels of a side of a full clip, a positive integer.
        milestones: The epochs at which the learning rate of the replaced run drops, strictly increasing.
        epochs: Epochs of the replaced run, more than the last milestone.
        steps_per_epoch: Updates of an epoch at the base batch size, a positive integer.
        gamma: What the learning rate drops by, above 0 and at most 1. Defaults to `0.1`.
        epoch_factor: Positive. Defaults to `1.5`.
        short_cycle: Whether there is the short cycle. Defaults to `True`.
        name: A label. Defaults to `"MultigridShapes"`.

    Raises:
        ValueError: If an argument is out of its range, or a shape would get no epoch.

    Reference: arXiv:1912.00998; official code, facebookresearch/SlowFast.

    Example:

    >>> grid = MultigridShapes(32, 224, milestones=(94, 154, 196), epochs=239, steps_per_epoch=3000)
    >>> grid.epoch_ends[:5]
    [73, 110, 142, 158, 205]
    >>> grid.shape(0), grid.shape(1), grid.shape(2)
    (Shape(batch_factor=16, frames=8, crop=112), Shape(batch_factor=8, frames=8, crop=158),
     Shape(batch_factor=8, frames=8, crop=158))
    """

    total_steps: int

    def __init__(
        self,
        frames: int,
        crop: int,
        milestones: Sequence[int],
        epochs: int,
        steps_per_epoch: int,
        gamma: float = 0.1,
        epoch_factor: float = 1.5,
        short_cycle: bool = True,
        name: str = "MultigridShapes",
    ) -> None:
        self.frames, self.crop = validation.positive_int("frames", frames), validation.positive_int("crop", crop)
        self.milestones = validation.increasing("milestones", milestones, validation.positive_int)
        self.epochs = validation.positive_int("epochs", epochs)
        if not self.milestones or self.milestones[-1] >= self.epochs:
            raise ValueError(
                "`milestones` must be one or more epochs, all before `epochs`. "
                f"Received: milestones={milestones}, epochs={epochs}"
            )
        self.steps_per_epoch = validation.positive_int("steps_per_epoch", steps_per_epoch)
        self.gamma = validation.positive_fraction("gamma", gamma)
        self.epoch_factor = validation.positive_float("epoch_factor", epoch_factor)
        self.short_cycle = bool(validation.one_of("short_cycle", short_cycle, (False, True)))
        self.name = name
        stages = len(self.milestones)
        cycle = [self._shapes(*factors) for factors in LONG_CYCLE]
        self._stages = cycle * stages + [cycle[-1]] * 2
        self.epoch_ends = self._epoch_ends([float(np.mean([shape.batch_factor for shape in shapes])) for shapes in cycle])
        rates = [self.gamma**stage * shapes[-1].batch_factor for stage in range(stages) for shapes in cycle]
        self._rates = [*rates, rates[-1], self.gamma**stages]
        ends, end = [], 0
        for shapes, (first, last) in zip(self._stages, itertools.pairwise([0, *self.epoch_ends]), strict=True):
            if first >= last:
                raise ValueError(f"The run is too short for its shapes. Received: epochs={epochs}, milestones={milestones}")
            average = sum(shape.batch_factor for shape in shapes) / len(shapes)
            end += (last - first) * max(1, int(self.steps_per_epoch / average))
            ends.append(end)
        super().__init__(ends[:-1], [shapes[-1].batch_factor for shapes in self._stages])
        self.total_steps = end

    def _shapes(self, frames_factor: float, crop_factor: float) -> list[Shape]:
        """The three shapes of the short cycle, or the one without it."""
        frames, crop = round(self.frames * frames_factor), round(self.crop * crop_factor)
        crops = [*(self.crop * factor for factor in SHORT_CYCLE if self.short_cycle), crop]
        full = self.frames * self.crop**2
        return [Shape(round(full / (frames * crop**2)), frames, round(crop)) for crop in crops]

    def _epoch_ends(self, averages: list[float]) -> list[int]:
        lengths = []
        for first, last in itertools.pairwise([0, *self.milestones]):
            lengths += [(last - first) * average / sum(averages) for average in averages]
        updates = sum(length / average for length, average in zip(lengths, itertools.cycle(averages), strict=False))
        fine = (self.epochs - self.milestones[-1]) * updates / self.milestones[-1] * averages[-1]
        scale = self.epochs * self.epoch_factor / (sum(lengths) + fine)
        ends = [round(scale * end) for end in itertools.accumulate([*lengths, fine])]
        return [*ends[:-1], (ends[-2] + ends[-1]) // 2, ends[-1]]

    def compute(self, step: Any, xp: Any) -> Any:
        step = xp.clip(step, 0, self.total_steps - 1)
        period = len(self._stages[0])
        factors = [shape.batch_factor for shapes in self._stages for shape in shapes]
        index = to_int(piece(step, self.boundaries, xp), xp) * period + to_int(step % period, xp)
        return xp.take(to_float(factors, xp), index)

    def shape(self, step: int) -> Shape:
        """The `Shape` of the mini-batch for the update after `step`, an int."""
        step = min(validation.non_negative_int("step", step), self.total_steps - 1)
        shapes = self._stages[int(piece(step, self.boundaries, np))]
        return shapes[step % len(shapes)]

    def learning_rate(self, base_learning_rate: float) -> Schedule:
        """The learning rate: `base_learning_rate` times gamma to the stage, times the batch factor of the long cycle."""
        base = validation.positive_float("base_learning_rate", base_learning_rate)
        return PiecewiseConstant(self.boundaries, [base * rate for rate in self._rates])
