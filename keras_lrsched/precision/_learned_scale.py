"""Rounding to integers times a scale that is learned."""

from typing import Any, NamedTuple

from keras import ops

from keras_lrsched.precision._residuals import unless_exporting


class Grid(NamedTuple):
    """Integers from `lowest` to `highest`, and of these each `step`th, from `last_lowest` to `last_highest` steps."""

    lowest: Any
    highest: Any
    step: Any
    last_lowest: Any
    last_highest: Any

    def round(self, x):
        """-> numbers of the grid, and whether `x` was within its range, as 0 or 1."""
        whole = ops.minimum(ops.maximum(ops.round(x), self.lowest), self.highest)
        steps = whole / self.step
        result = ops.minimum(ops.maximum(ops.round(steps), self.last_lowest), self.last_highest) * self.step
        outside = (x < self.lowest) | (x > self.highest) | (steps < self.last_lowest) | (steps > self.last_highest)
        return result, 1 - ops.cast(outside, "float32")


class LearnedScale(NamedTuple):
    """Rounds to a grid times the scale start (1 + sum(factors moves)).

    The gradient by scale / start, divided by sqrt(size highest), is that by the move that is `chosen`, without its factor.
    """

    grid: Grid
    start: Any
    factors: Any
    chosen: Any
    size: int

    def __call__(self, x, moves):
        @unless_exporting
        def rounded(x, moves):
            start = ops.where(self.start > 0, self.start, 1.0)
            scale = start * ops.maximum(1 + ops.sum(self.factors * moves), 0.01)
            scaled = x / scale
            result, inside = self.grid.round(scaled)

            def grad(*args, upstream=None):
                dy = args[0] if upstream is None else upstream
                by_scale = ops.sum(dy * (result - scaled * inside)) * start / ops.sqrt(self.size * self.grid.highest)
                return dy * inside, by_scale * self.chosen

            return result * scale, grad

        return rounded(x, moves)
