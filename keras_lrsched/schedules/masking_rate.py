"""The masking rate of masked language models, falling through the training (Ankner et al. 2023)."""

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.profiles import ProfileLike
from keras_lrsched.schedules.segment import Segment


@register(
    "masking_rate",
    title="masking rate decay",
    paper="arXiv:2305.15096",
    checked="memory",
    against="detailed notes on the paper, for rates and shapes",
    deviations="no official code was seen",
    kind="masking rate",
)
class MaskingRate(PhasedSchedule):
    """The fraction of tokens to mask, from `initial_rate` to `final_rate`. Not a learning rate: the value is a fraction.

        value(t) = final + (initial - final) * profile(t / T), T = `total_steps`; from t = T on the final rate

    The paper masks less and less, from 0.30 to 0.15 (a large model: 0.40 to 0.25); a line, a cosine, and one step at half
    time are equally good, a rising rate is not. Of the masked tokens 80 % become the mask, 10 % another token, 10 % stay,
    and all count in the loss.

    Args:
        total_steps: Updates from the initial to the final rate, a positive integer.
        initial_rate: The rate at t = 0, above 0 and at most 1. Defaults to `0.3`.
        final_rate: The rate at t = `total_steps`, above 0 and at most 1. Defaults to `0.15`.
        profile: A `Profile`, its name or config. Defaults to `"linear"`.
        name: A label. Defaults to `"MaskingRate"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: arXiv:2305.15096.

    Example:

    >>> MaskingRate(total_steps=4).values(5)
    array([0.3   , 0.2625, 0.225 , 0.1875, 0.15  ])
    """

    def __init__(
        self,
        total_steps: int,
        initial_rate: float = 0.3,
        final_rate: float = 0.15,
        profile: ProfileLike = "linear",
        name: str = "MaskingRate",
    ) -> None:
        steps = validation.positive_int("total_steps", total_steps)
        self.initial_rate = validation.positive_fraction("initial_rate", initial_rate)
        self.final_rate = validation.positive_fraction("final_rate", final_rate)
        self.profile = profiles.get(profile)
        self.name = name
        self.segments = [Segment(steps, self.initial_rate, self.final_rate, self.profile)]
