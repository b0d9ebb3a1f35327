"""The power scheduler (Shen et al. 2024): a power law of the tokens seen, the same for every length of training."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.profiles import ProfileLike
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment, floor_of
from keras_lrsched.schedules.warmup_stable_decay import split_budget


@register(
    "power",
    title="power law of the tokens seen",
    paper="arXiv:2408.13359",
    code=("IBM/dolomite-engine",),
    checked="read",
    against="the paper and `PowerScheduler` of dolomite-engine, whose `a` is our B * a and which has no cooldown",
    deviations=(
        "the rate of the paper's exponential cooldown is unknown: the default is Megatron-LM's. OLMo-core's "
        "`PowerLR` and Levanter's `power`, which counts tokens from its own start, are other schedules"
    ),
    kind="learning rate",
    choices={"b": ((-0.7, -0.51, -0.3), -0.51), "decay_fraction": ((0.05, 0.1, 0.2, 0.4), 0.1)},
)
class PowerDecay(PhasedSchedule):
    """A learning rate that depends on the tokens seen and the batch size alone, between a warmup and a short cooldown.

    With B = `batch_size` in sequences, c = B * `sequence_length` tokens an update, n = c * t, N, Nw, Nd = `total_tokens`,
    `warmup_tokens`, `decay_tokens`, x = (n - N + Nd) / Nd, and eta(n) = min(max_learning_rate, B * a * n^b):

        n < Nw:            eta(Nw) * n / Nw
        Nw <= n < N - Nd:  eta(n)
        n >= N - Nd:       eta(N - Nd) * (alpha + (1 - alpha) * cooldown(x)), from n = N on the floor

    The units matter: tokens everywhere, but the batch in sequences. In tokens, it would make the value 4096 times as large.

    Args:
        total_tokens: Tokens in the run, N.
        warmup_tokens: Tokens until the peak, Nw; 1e9 in the paper. `0`: no warmup.
        decay_tokens: Tokens of the cooldown, Nd; a tenth of all in the paper's controlled runs.
        batch_size: Sequences an update, B, over all devices and accumulated micro-batches.
        sequence_length: Tokens a sequence. Defaults to `4096`.
        max_learning_rate: The cap of eta. Defaults to `0.02`.
        a: The amplitude for one sequence an update. Defaults to `4.0`; the search range is 3 to 5. (4.6 is the amplitude of
            the paper's static rule for the peak of WSD, not this one's.)
        b: The exponent, in (-1, 0). Defaults to `-0.51`; the search range is -0.6 to -0.4.
        cooldown: A `Profile`, its name or config. The paper decays exponentially to 0, at a rate unknown to us; the default,
            `"exponential_to_zero"`, is Megatron-LM's, 2 * 0.5^x - 1. `"linear"` is the other choice; `"exponential"` needs
            `alpha` > 0.
        alpha: The floor as a fraction of the value at which the cooldown starts, in [0, 1]. Defaults to `0.0`.
        name: A label. Defaults to `"PowerDecay"`.

    Raises:
        ValueError: If an argument is out of its range, the segments are longer than the run, or a number of tokens is less
            than what one update takes: then it counts updates, or the batch counts tokens.

    Reference: arXiv:2408.13359; official code, IBM/dolomite-engine.

    Example:

    >>> schedule = PowerDecay(1.1e12, 1e9, 1e11, batch_size=1024, sequence_length=15_625, cooldown="linear")
    >>> schedule.values([625, 6_250, 62_500, 68_750]).round(7)
    array([0.02     , 0.0100545, 0.0031071, 0.       ])
    >>> PowerDecay.steps_from_tokens(1e12, batch_size=1024, sequence_length=15_625)
    62500
    """

    def __init__(
        self,
        total_tokens: float,
        warmup_tokens: float,
        decay_tokens: float,
        batch_size: int,
        sequence_length: int = 4096,
        max_learning_rate: float = 0.02,
        a: float = 4.0,
        b: float = -0.51,
        cooldown: ProfileLike = "exponential_to_zero",
        alpha: float = 0.0,
        name: str = "PowerDecay",
    ) -> None:
        self.batch_size = validation.positive_int("batch_size", batch_size)
        self.sequence_length = validation.positive_int("sequence_length", sequence_length)
        per_update = self.batch_size * self.sequence_length
        self.total_tokens = _checked_tokens("total_tokens", total_tokens, batch_size, sequence_length)
        self.warmup_tokens = validation.non_negative_float("warmup_tokens", warmup_tokens)
        if self.warmup_tokens:
            _checked_tokens("warmup_tokens", warmup_tokens, batch_size, sequence_length)
        self.decay_tokens = _checked_tokens("decay_tokens", decay_tokens, batch_size, sequence_length)
        stable_end = self.total_tokens - self.decay_tokens
        if stable_end < self.warmup_tokens:
            raise ValueError(
                "`warmup_tokens` and `decay_tokens` must fit into `total_tokens`. Received: "
                f"total_tokens={total_tokens}, warmup_tokens={warmup_tokens}, decay_tokens={decay_tokens}"
            )
        self.max_learning_rate = peak = validation.positive_float("max_learning_rate", max_learning_rate)
        self.a = validation.positive_float("a", a)
        self.b = validation.between("b", b, -1, 0)
        self.alpha = validation.fraction("alpha", alpha)
        self.cooldown = profiles.get(cooldown, floor=self.alpha)
        self.name = name
        cap_end = min(max(self.warmup_tokens, (peak / (self.batch_size * self.a)) ** (1 / self.b)), stable_end)
        first, last = self._eta(cap_end), self._eta(stable_end)
        law = profiles.inverse_power(last / first, -self.b) if last < first else profiles.linear
        self.segments = [
            Segment(self.warmup_tokens / per_update, 0.0, self._eta(self.warmup_tokens)),
            Segment((cap_end - self.warmup_tokens) / per_update, first, first),
            Segment((stable_end - cap_end) / per_update, first, last, law),
            Segment(self.decay_tokens / per_update, last, floor_of(last, self.alpha, self.cooldown), self.cooldown),
        ]

    def _eta(self, tokens: float) -> float:
        if not tokens:  # 0^b is infinite
            return self.max_learning_rate
        return min(self.max_learning_rate, self.batch_size * self.a * tokens**self.b)

    @staticmethod
    def steps_from_tokens(tokens: float, batch_size: int, sequence_length: int = 4096) -> int:
        """The number of updates with so many tokens, for a batch of so many sequences; the last may be a part of one.

        Raises:
            ValueError: If an argument is no positive number, or `tokens` is less than one update takes.
        """
        tokens = _checked_tokens("tokens", tokens, batch_size, sequence_length)
        return int(-(-tokens // (batch_size * sequence_length)))

    @classmethod
    def for_budget(
        cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, decay_fraction: float = 0.1, **options: Any
    ) -> Schedule:
        """The power law begins at 2.6 % of the budget, or when the warmup ends; the last tenth is the cooldown.

        So it is in the paper's runs of 1e12 tokens in batches of 1024, where the cap of 0.02 is left at 2.6e10 tokens. Here
        `a` follows from it, and each update counts for one token, in a batch of one.
        """
        _, _, decay_steps = split_budget(total_steps, warmup_steps, decay_fraction)
        peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
        units = {"batch_size": 1, "sequence_length": 1, "max_learning_rate": peak}
        a = peak * max(warmup_steps, 0.026 * total_steps) ** -options.get("b", -0.51)
        return cls(total_steps, warmup_steps, decay_steps, **{**units, "a": a, **options})


def _checked_tokens(name: str, tokens: float, batch_size: int, sequence_length: int) -> float:
    tokens = validation.positive_float(name, tokens)
    batch_size = validation.positive_int("batch_size", batch_size)
    if tokens < batch_size * validation.positive_int("sequence_length", sequence_length):
        raise ValueError(
            f"`{name}` must be no less than the batch_size * sequence_length tokens of one update: it counts tokens, not "
            "updates, and `batch_size` counts sequences, not tokens. "
            f"Received: {name}={tokens}, batch_size={batch_size}, sequence_length={sequence_length}"
        )
    return tokens
