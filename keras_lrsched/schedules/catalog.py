"""The catalog: one row a schedule, by which the command line, the gallery and the contract tests find it.

A schedule joins all of them by being listed here.

Example:

>>> get("rex").reference
'arXiv:2107.04197'
>>> parse("rex:a=0.1:b=0.9", peak_learning_rate=1.0, total_steps=100)
REXDecay(initial_learning_rate=1.0, decay_steps=100, a=0.1, b=0.9)
"""

import difflib
import inspect
import json
from dataclasses import dataclass, field

from keras_lrsched.schedules.base import Schedule
from keras_lrsched.schedules.batch_size_warmup import BatchSizeWarmup
from keras_lrsched.schedules.certified_epsilon import CertifiedEpsilon
from keras_lrsched.schedules.chain import Chain
from keras_lrsched.schedules.constant import Constant
from keras_lrsched.schedules.continued_pretraining import ContinuedPretraining
from keras_lrsched.schedules.cyclical_policies import Triangular2CyclicalLearningRate, TriangularCyclicalLearningRate
from keras_lrsched.schedules.distribution_shift import DistributionShift
from keras_lrsched.schedules.efficient_train_stages import EfficientTrainStages
from keras_lrsched.schedules.infinite_learning_rate import InfiniteLearningRate
from keras_lrsched.schedules.inverse_sqrt_decay import InverseSqrtDecay
from keras_lrsched.schedules.learning_rate_rewinding import LearningRateRewinding
from keras_lrsched.schedules.linear_decay import LinearDecay
from keras_lrsched.schedules.masking_rate import MaskingRate
from keras_lrsched.schedules.minicpm_decay import MiniCPMDecay
from keras_lrsched.schedules.moderate_decay import ModerateDecay
from keras_lrsched.schedules.multigrid_shapes import MultigridShapes
from keras_lrsched.schedules.multiplicative_cyclic import MultiplicativeCyclic
from keras_lrsched.schedules.noam_decay import NoamDecay
from keras_lrsched.schedules.one_cycle import OneCycle
from keras_lrsched.schedules.per_update import PerUpdate
from keras_lrsched.schedules.piecewise_constant import PiecewiseConstant
from keras_lrsched.schedules.power_decay import PowerDecay
from keras_lrsched.schedules.product import Product
from keras_lrsched.schedules.profile_decay import ProfileDecay
from keras_lrsched.schedules.refined_schedule import RefinedSchedule
from keras_lrsched.schedules.rewarm_redecay import RewarmRedecay
from keras_lrsched.schedules.rex_decay import REXDecay
from keras_lrsched.schedules.scale import Scale
from keras_lrsched.schedules.slow_start_fast_decay import SlowStartFastDecay
from keras_lrsched.schedules.sparsity_ramp import SparsityRamp
from keras_lrsched.schedules.step_decay_with_warmup import StepDecayWithWarmup
from keras_lrsched.schedules.synchronization_period import SynchronizationPeriod
from keras_lrsched.schedules.tabulated import Tabulated
from keras_lrsched.schedules.unified_budget_aware_decay import UnifiedBudgetAwareDecay
from keras_lrsched.schedules.warmup import Warmup
from keras_lrsched.schedules.warmup_stable_decay import WarmupStableDecay
from keras_lrsched.schedules.warmup_stable_decay_simplified import WarmupStableDecaySimplified


@dataclass(frozen=True)
class Entry:
    """One row: the short name, the class, where it comes from, the options that the name stands for, what it schedules."""

    name: str
    schedule: type[Schedule]
    reference: str
    title: str
    options: dict = field(default_factory=dict)
    kind: str = "learning rate"

    def for_budget(self, peak_learning_rate, total_steps, warmup_steps=0, **options):
        """The schedule in its usual proportions; see `Schedule.for_budget`."""
        return self.schedule.for_budget(
            peak_learning_rate, total_steps, warmup_steps=warmup_steps, **{**self.options, **options}
        )


CATALOG = (
    Entry("constant", Constant, "-", "constant"),
    Entry("continued_pretraining", ContinuedPretraining, "arXiv:2407.07263", "cosine to a hundredth (Reuse, Don't Retrain)"),
    Entry("cosine", ProfileDecay, "arXiv:1608.03983", "cosine decay", {"profile": "cosine", "name": "cosine"}),
    Entry("cyclical", TriangularCyclicalLearningRate, "arXiv:1506.01186", "cyclical, equal triangles (CLR)"),
    Entry("cyclical2", Triangular2CyclicalLearningRate, "arXiv:1506.01186", "cyclical, halving triangles (CLR)"),
    Entry("distribution_shift", DistributionShift, "arXiv:2303.15634", "greedy for a drifting target (ours)"),
    Entry("infinite", InfiniteLearningRate, "arXiv:2403.08763", "infinite: cooldown, constant, annealing"),
    Entry("inverse_sqrt", InverseSqrtDecay, "arXiv:1706.03762", "inverse square root"),
    Entry("linear", LinearDecay, "arXiv:2502.15938", "linear decay to zero (D2Z)"),
    Entry("minicpm", MiniCPMDecay, "arXiv:2404.06395", "warmup-stable-decay with a half-life (MiniCPM)"),
    Entry("moderate", ModerateDecay, "arXiv:2511.18903", "moderate decay for a curriculum"),
    Entry("multiplicative_cyclic", MultiplicativeCyclic, "arXiv:2206.00832", "cosines, each twice as long"),
    Entry("noam", NoamDecay, "arXiv:1706.03762", "Noam"),
    Entry("one_cycle", OneCycle, "arXiv:1708.07120", "1cycle"),
    Entry("power", PowerDecay, "arXiv:2408.13359", "power law of the tokens seen"),
    Entry("profile", ProfileDecay, "arXiv:2107.04197", "any profile, any sampling rate"),
    Entry("rewarm_redecay", RewarmRedecay, "arXiv:2403.08763", "re-warm and re-decay"),
    Entry("rex", REXDecay, "arXiv:2107.04197", "REX"),
    Entry("slow_start", SlowStartFastDecay, "arXiv:2012.13628", "slow start, fast decay (form ours)"),
    Entry("step", StepDecayWithWarmup, "arXiv:1706.02677", "steps behind a warmup"),
    Entry("uba", UnifiedBudgetAwareDecay, "arXiv:2505.24452", "unified budget-aware (UBA)"),
    Entry("wsd", WarmupStableDecay, "arXiv:2404.06395", "warmup-stable-decay (1 - sqrt)"),
    Entry("wsd_s", WarmupStableDecaySimplified, "arXiv:2410.05192", "WSD-S: many cooldowns on one branch"),
)
"""All learning rates that can be named, in alphabetical order."""


OTHERS = (
    Entry("batch_size_warmup", BatchSizeWarmup, "arXiv:2505.23971", "batch size warmup", kind="batch size"),
    Entry("certified_epsilon", CertifiedEpsilon, "arXiv:2103.17268", "certified training", kind="radius"),
    Entry("efficient_train", EfficientTrainStages, "arXiv:2211.09703", "EfficientTrain++", kind="input size"),
    Entry("masking_rate", MaskingRate, "arXiv:2305.15096", "masking rate decay", kind="masking rate"),
    Entry("multigrid", MultigridShapes, "arXiv:1912.00998", "multigrid training", kind="shape of the batch"),
    Entry("qsr", SynchronizationPeriod, "arXiv:2310.14423", "quadratic synchronization rule", kind="period of averaging"),
    Entry("refined", RefinedSchedule, "arXiv:2310.07831", "refined by a run's gradients", kind="learning rate from a run"),
    Entry("sparsity_ramp", SparsityRamp, "arXiv:1710.01878", "cubic sparsity ramp", kind="sparsity"),
)
"""Schedules of something else, or from more than a budget, in alphabetical order; they are built by their class."""


COMBINATORS = (Chain, LearningRateRewinding, PerUpdate, PiecewiseConstant, Product, Scale, Tabulated, Warmup)
"""Schedules that are made of others, or of a table; they have no usual proportions."""


def names():
    return [entry.name for entry in CATALOG]


def get(name):
    """The row of this name.

    Raises:
        ValueError: If there is none; the message lists what is close, or all.
    """
    for entry in CATALOG:
        if entry.name == name:
            return entry
    for entry in OTHERS:
        if entry.name == name:
            raise ValueError(
                f"{name!r} cannot be made from a budget, it schedules a {entry.kind}: use keras_lrsched.schedules."
                f"{entry.schedule.__name__}."
            )
    close = difflib.get_close_matches(name, names(), n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(names())}."
    raise ValueError(f"Unknown schedule {name!r}. {hint}")


def parse(text, peak_learning_rate, total_steps, warmup_steps=0):
    """The schedule that a command line means by `name`, `name:option=value:option=value` or `file:PATH`.

    Options are constructor arguments of the class; values are JSON, or plain words. A file is one of `Tabulated.save`; its
    values count as they are, and must be as many as the updates.

    Raises:
        ValueError: If the name or an option is unknown, a value is out of its range, or a file is none or of another length.
        OSError: If a file cannot be read.
    """
    name, *words = text.split(":")
    if name == "file":
        return _from_file(text.partition(":")[2], total_steps)
    entry = get(name)
    options = dict(_option(word, text) for word in words)
    try:
        return entry.for_budget(peak_learning_rate, total_steps, warmup_steps=warmup_steps, **options)
    except TypeError as error:
        known = _options(entry, peak_learning_rate, total_steps, warmup_steps)
        unknown = [key for key in options if key not in known]
        if not unknown:
            raise ValueError(f"An option of {text!r} has a value of the wrong kind: {error}") from error
        raise ValueError(
            f"{name!r} has no option {unknown[0]!r}. It has: {', '.join(known) or 'none'}. Received: {text!r}"
        ) from error


BUDGET = ("warmup_steps", "warmup_target", "name")
"""Arguments of schedules that are no options: they come from the budget and the entry."""


def _options(entry, *budget):
    """The names of the options that go with a budget: those with a default that the budget does not set itself."""

    def goes(name, value):
        try:
            entry.for_budget(*budget, **{name: value})
        except (TypeError, ValueError):
            return False
        return True

    functions = entry.schedule.__init__, entry.schedule.for_budget
    parameters = {name: each for function in functions for name, each in inspect.signature(function).parameters.items()}
    parameters = {name: each for name, each in parameters.items() if each.default is not each.empty}
    return [name for name, each in parameters.items() if name not in BUDGET and goes(name, each.default)]


def _from_file(path, total_steps):
    schedule = Tabulated.load(path)
    if schedule.total_steps != total_steps:
        raise ValueError(f"The schedule in {path!r} is one for {schedule.total_steps} updates. Received: {total_steps}")
    return schedule


def _option(word, text):
    key, equals, value = word.partition("=")
    if not (key and equals and value):
        raise ValueError(f"Write options as name:option=value. Received: {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
