"""EfficientTrain: small images and weak augmentation first (Wang et al. 2023, 2024)."""

import itertools
from collections.abc import Sequence
from typing import Self

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules.piecewise_constant import PiecewiseConstant

DEFAULT_SIZES = (96,) * 2 + (160,) * 4 + (224,) * 4
"""Those of EfficientTrain++ for most models."""


@register(
    "efficient_train",
    title="EfficientTrain++",
    paper="arXiv:2211.09703",
    code=("LeapLabTHU/EfficientTrain",),
    checked="read",
    against="sizes, magnitudes and lengths in the official `_ET_pp_main_*.py` and `ET_training.py`",
    deviations="stages end at whole updates, in the official code at whole epochs; images are not resized here",
    kind="input size",
)
class EfficientTrainStages(PiecewiseConstant):
    """Stages with ever larger images and stronger augmentation. Not a learning rate: the value is the size of the input in
    pixels a side.

    An update on images of size s costs s^2. With `equal="compute"` (EfficientTrain++), each of n stages gets the same
    compute: stage i ends at update

        T * (1 / s_0^2 + ... + 1 / s_i^2) / (1 / s_0^2 + ... + 1 / s_(n-1)^2),  T = `total_steps`,

    rounded to a whole one. With `equal="steps"` (the first EfficientTrain), at T (i + 1) / n.

    The default sizes are those of EfficientTrain++ for most models. Others: DeiT-S 2 x 96, 4 x 160, 2 x 192, 2 x 224;
    ConvNeXt 6 x 160, 4 x 224. The first EfficientTrain: `sizes=(160, 160, 160, 192, 224)`, `magnitudes=(1, 3, 5, 7, 9)`,
    `equal="steps"`.

    Args:
        total_steps: Updates of the run, T, a positive integer.
        sizes: The size in each stage, a list of positive integers. Defaults to 2 x 96, 4 x 160, 4 x 224.
        magnitudes: The magnitude of RandAugment in each stage. Defaults to `None`: 0, 1, 2, ...
        equal: `"compute"` or `"steps"`: what is the same in all stages. Defaults to `"compute"`.
        name: A label. Defaults to `"EfficientTrainStages"`.

    Raises:
        ValueError: If an argument is out of its range, the lists differ in length, or the run is too short for its stages.

    Reference: arXiv:2211.09703, arXiv:2405.08768; official code, LeapLabTHU/EfficientTrain, which resizes with Lanczos
    (++), or crops in Fourier space (the first).

    Example:

    >>> stages = EfficientTrainStages(100, sizes=(96, 192), magnitudes=(0, 9))
    >>> stages.values([0, 79, 80, 99])
    array([ 96.,  96., 192., 192.])
    >>> stages.magnitude().values([79, 80])
    array([0., 9.])
    """

    def __init__(
        self,
        total_steps: int,
        sizes: Sequence[int] = DEFAULT_SIZES,
        magnitudes: Sequence[float] | None = None,
        equal: str = "compute",
        name: str = "EfficientTrainStages",
    ) -> None:
        self.sizes = validation.each("sizes", sizes, validation.positive_int)
        magnitudes = range(len(self.sizes)) if magnitudes is None else magnitudes
        self.magnitudes = validation.each("magnitudes", magnitudes, validation.non_negative_float)
        self.equal = validation.one_of("equal", equal, ("compute", "steps"))
        self.name = name
        total = validation.positive_int("total_steps", total_steps)
        if len(self.magnitudes) != len(self.sizes):
            raise ValueError(
                "There must be as many `magnitudes` as `sizes`. "
                f"Received: {len(self.magnitudes)} magnitudes, {len(self.sizes)} sizes"
            )
        shares = [size**-2 if equal == "compute" else 1 for size in self.sizes]
        ends = [round(total * share / sum(shares)) for share in itertools.accumulate(shares)]
        if any(end <= start for start, end in itertools.pairwise([0, *ends])):
            raise ValueError(
                f"The run is too short for {len(self.sizes)} stages. Received: total_steps={total_steps}, sizes={sizes}"
            )
        super().__init__(ends[:-1], self.sizes)
        self.total_steps = total

    @classmethod
    def for_full_size_steps(
        cls,
        steps: int,
        sizes: Sequence[int] = DEFAULT_SIZES,
        full_size: int = 224,
        magnitudes: Sequence[float] | None = None,
        equal: str = "compute",
        name: str = "EfficientTrainStages",
    ) -> Self:
        """The stages with the compute of `steps` updates at `full_size`, as the official scripts count."""
        steps, full_size = validation.positive_int("steps", steps), validation.positive_int("full_size", full_size)
        sizes = cls(10**9, sizes, magnitudes, equal).sizes
        total = round(steps / len(sizes) * sum((full_size / size) ** 2 for size in sizes))
        return cls(total, sizes, magnitudes, equal, name)

    def magnitude(self) -> PiecewiseConstant:
        """The magnitude of RandAugment, as a schedule."""
        return PiecewiseConstant(self.boundaries, self.magnitudes)
