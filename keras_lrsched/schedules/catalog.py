"""The catalog: one row a schedule, by which the command line, the gallery and the contract tests find it.

A schedule joins all of them by being listed here.

Example:

>>> get("rex").reference
'arXiv:2107.04197'
>>> parse("rex:a=0.1:b=0.9", peak_learning_rate=1.0, total_steps=100)
REXDecay(initial_learning_rate=1.0, decay_steps=100, a=0.1, b=0.9)
"""

import difflib
import json
from dataclasses import dataclass, field

from keras_lrsched.schedules.base import Schedule
from keras_lrsched.schedules.chain import Chain
from keras_lrsched.schedules.constant import Constant
from keras_lrsched.schedules.inverse_sqrt_decay import InverseSqrtDecay
from keras_lrsched.schedules.linear_decay import LinearDecay
from keras_lrsched.schedules.one_cycle import OneCycle
from keras_lrsched.schedules.per_update import PerUpdate
from keras_lrsched.schedules.profile_decay import ProfileDecay
from keras_lrsched.schedules.rex_decay import REXDecay
from keras_lrsched.schedules.scale import Scale
from keras_lrsched.schedules.tabulated import Tabulated
from keras_lrsched.schedules.unified_budget_aware_decay import UnifiedBudgetAwareDecay
from keras_lrsched.schedules.warmup import Warmup
from keras_lrsched.schedules.warmup_stable_decay import WarmupStableDecay


@dataclass(frozen=True)
class Entry:
    """One row: the short name, the class, where it comes from, and the options that the name stands for."""

    name: str
    schedule: type[Schedule]
    reference: str
    title: str
    options: dict = field(default_factory=dict)

    def for_budget(self, peak_learning_rate, total_steps, warmup_steps=0, **options):
        """The schedule in its usual proportions; see `Schedule.for_budget`."""
        return self.schedule.for_budget(
            peak_learning_rate, total_steps, warmup_steps=warmup_steps, **{**self.options, **options}
        )


CATALOG = (
    Entry("constant", Constant, "-", "constant"),
    Entry("cosine", ProfileDecay, "arXiv:1608.03983", "cosine decay", {"profile": "cosine", "name": "cosine"}),
    Entry("inverse_sqrt", InverseSqrtDecay, "arXiv:1706.03762", "inverse square root"),
    Entry("linear", LinearDecay, "arXiv:2502.15938", "linear decay to zero (D2Z)"),
    Entry("one_cycle", OneCycle, "arXiv:1708.07120", "1cycle"),
    Entry("profile", ProfileDecay, "arXiv:2107.04197", "any profile, any sampling rate"),
    Entry("rex", REXDecay, "arXiv:2107.04197", "REX"),
    Entry("uba", UnifiedBudgetAwareDecay, "arXiv:2505.24452", "unified budget-aware (UBA)"),
    Entry("wsd", WarmupStableDecay, "arXiv:2404.06395", "warmup-stable-decay (1 - sqrt)"),
)
"""All schedules that can be named, in alphabetical order."""


COMBINATORS = (Chain, PerUpdate, Scale, Tabulated, Warmup)
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
    close = difflib.get_close_matches(name, names(), n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(names())}."
    raise ValueError(f"Unknown schedule {name!r}. {hint}")


def parse(text, peak_learning_rate, total_steps, warmup_steps=0):
    """The schedule that a command line means by `name` or `name:option=value:option=value`.

    Options are constructor arguments of the class; values are JSON, or plain words.

    Raises:
        ValueError: If the name or an option is unknown, or a value is out of its range.
    """
    name, *words = text.split(":")
    entry = get(name)
    options = dict(_option(word, text) for word in words)
    try:
        return entry.for_budget(peak_learning_rate, total_steps, warmup_steps=warmup_steps, **options)
    except TypeError as error:
        raise ValueError(f"An option of {text!r} does not exist: {error}") from error


def _option(word, text):
    key, equals, value = word.partition("=")
    if not (key and equals and value):
        raise ValueError(f"Write options as name:option=value. Received: {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
