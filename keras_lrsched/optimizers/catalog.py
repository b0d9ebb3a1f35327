"""The catalog: one row an optimizer, by which tables, benchmarks and the contract tests find it.

An optimizer joins all of them by being listed here. A name stands for the method with the values of its paper or of the
authors' code, where those of the class are Keras'.

Example:

>>> get("lion").reference
'arXiv:2302.06675'
>>> get("lion").build(beta_2=0.98).get_config()["beta_2"]
0.98
"""

import difflib
from dataclasses import dataclass, field

import keras

from keras_lrsched.optimizers.adabound import AdaBound
from keras_lrsched.optimizers.adafactor import Adafactor
from keras_lrsched.optimizers.adalomo import AdaLomo
from keras_lrsched.optimizers.adam_atan2 import AdamAtan2
from keras_lrsched.optimizers.adam_mini import AdamMini
from keras_lrsched.optimizers.adamod import AdaMod
from keras_lrsched.optimizers.adamomentum import AdaMomentum
from keras_lrsched.optimizers.adamw import AdamW
from keras_lrsched.optimizers.apollo import Apollo
from keras_lrsched.optimizers.apollo_mini import ApolloMini
from keras_lrsched.optimizers.cocob import COCOB
from keras_lrsched.optimizers.dadapt_adam import DAdaptAdam
from keras_lrsched.optimizers.dadapt_lion import DAdaptLion
from keras_lrsched.optimizers.dadapt_sgd import DAdaptSGD
from keras_lrsched.optimizers.fira import Fira
from keras_lrsched.optimizers.galore import GaLore
from keras_lrsched.optimizers.lamb import Lamb
from keras_lrsched.optimizers.lars import Lars
from keras_lrsched.optimizers.layerwise_learning_rate import LayerwiseLearningRate
from keras_lrsched.optimizers.lion import Lion
from keras_lrsched.optimizers.local_updates import LocalUpdates
from keras_lrsched.optimizers.lookahead import Lookahead
from keras_lrsched.optimizers.momo import MoMo
from keras_lrsched.optimizers.momo_adam import MoMoAdam
from keras_lrsched.optimizers.muon import ORIGINAL, Muon
from keras_lrsched.optimizers.normuon import NorMuon
from keras_lrsched.optimizers.optimizer import Optimizer
from keras_lrsched.optimizers.prodigy import Prodigy
from keras_lrsched.optimizers.rectified_adam import RectifiedAdam
from keras_lrsched.optimizers.schedule_free_adamw import ScheduleFreeAdamW
from keras_lrsched.optimizers.schedule_free_radam import ScheduleFreeRAdam
from keras_lrsched.optimizers.schedule_free_sgd import ScheduleFreeSGD
from keras_lrsched.optimizers.sgd import SGD
from keras_lrsched.optimizers.sgd_sai import SGDSaI
from keras_lrsched.optimizers.sophia import Sophia
from keras_lrsched.optimizers.wrapper import Wrapper


@dataclass(frozen=True)
class Entry:
    """One row: the short name, the class, where it comes from, what it is, the options that the name stands for."""

    name: str
    optimizer: type[keras.optimizers.Optimizer]
    reference: str
    title: str
    options: dict = field(default_factory=dict)
    inner: type[Optimizer] | None = None
    """What is wrapped, if the class is a wrapper: it takes the options that the class itself does not have."""

    def build(self, **options):
        """The optimizer with its defaults and these options."""
        options = {**self.options, **options}
        if issubclass(self.optimizer, Wrapper):
            return self.optimizer.around(self.inner, **options)
        return self.optimizer(**options)


ADAMW = {"epsilon": 1e-8}

CATALOG = (
    Entry("adabound", AdaBound, "arXiv:1902.09843", "Adam between bounds that close in on SGD"),
    Entry(
        "adafactor",
        Adafactor,
        "arXiv:1804.04235",
        "second moments by row and column, relative steps",
        {"learning_rate": 1e-2},
    ),
    Entry("adalomo", AdaLomo, "arXiv:2310.10195", "the update rule of low-memory optimization"),
    Entry("adam_atan2", AdamAtan2, "arXiv:2407.05872", "Adam with an arc tangent in place of epsilon"),
    Entry("adam_mini", AdamMini, "arXiv:2406.16793", "Adam with one second moment for each neuron or head"),
    Entry("adamod", AdaMod, "arXiv:1910.12249", "Adam with rates below their moving average"),
    Entry("adamomentum", AdaMomentum, "arXiv:2106.11514", "Adam that squares its momentum"),
    Entry("adamw", AdamW, "arXiv:1711.05101", "Adam with decoupled weight decay", ADAMW),
    Entry("apollo", Apollo, "arXiv:2412.05270", "gradients scaled as Adam would a random projection"),
    Entry("apollo_mini", ApolloMini, "arXiv:2412.05270", "APOLLO with one scale for each matrix"),
    Entry("cocob", COCOB, "arXiv:1705.07795", "coin betting, without a step size"),
    Entry("dadapt_adam", DAdaptAdam, "arXiv:2301.07733", "Adam that estimates the distance to go"),
    Entry("dadapt_lion", DAdaptLion, "arXiv:2301.07733", "Lion that estimates the distance to go"),
    Entry("dadapt_sgd", DAdaptSGD, "arXiv:2301.07733", "SGD that estimates the distance to go"),
    Entry("fira", Fira, "arXiv:2410.01623", "GaLore and the scaled rest of the gradient"),
    Entry("galore", GaLore, "arXiv:2403.03507", "Adam on the singular vectors of the gradient"),
    Entry("lamb", Lamb, "arXiv:1904.00962", "layerwise adaptive Adam for large batches", {"epsilon": 1e-6}),
    Entry("lars", Lars, "arXiv:1708.03888", "layerwise adaptive SGD for large batches"),
    Entry(
        "layerwise_learning_rate",
        LayerwiseLearningRate,
        "-",
        "AdamW with a learning rate for each layer",
        ADAMW,
        inner=AdamW,
    ),
    Entry("lion", Lion, "arXiv:2302.06675", "sign of a momentum", {"learning_rate": 1e-4}),
    Entry(
        "local_updates",
        LocalUpdates,
        "arXiv:2310.14423",
        "replicas that each run AdamW, averaged at times",
        ADAMW,
        inner=AdamW,
    ),
    Entry("lookahead", Lookahead, "arXiv:1907.08610", "slow weights that follow those of AdamW", ADAMW, inner=AdamW),
    Entry("momo", MoMo, "arXiv:2305.07583", "momentum with a step size from a model of the loss"),
    Entry("momo_adam", MoMoAdam, "arXiv:2305.07583", "Adam with a step size from a model of the loss"),
    Entry(
        "muon",
        Muon,
        "https://kellerjordan.github.io/posts/muon",
        "orthogonalized momentum for matrices",
        {"learning_rate": 0.02, **ORIGINAL},
    ),
    Entry("normuon", NorMuon, "arXiv:2510.05491", "Muon with a second moment for each neuron"),
    Entry("prodigy", Prodigy, "arXiv:2306.06101", "Adam that estimates the distance to go, faster"),
    Entry("rectified_adam", RectifiedAdam, "arXiv:1908.03265", "Adam with a warmup from its variance"),
    Entry("schedule_free_adamw", ScheduleFreeAdamW, "arXiv:2405.15682", "AdamW with averaged weights for a schedule"),
    Entry("schedule_free_radam", ScheduleFreeRAdam, "arXiv:2405.15682", "RAdam with averaged weights for a schedule"),
    Entry("schedule_free_sgd", ScheduleFreeSGD, "arXiv:2405.15682", "SGD with averaged weights for a schedule"),
    Entry(
        "sgd",
        SGD,
        "https://proceedings.mlr.press/v28/sutskever13.html",
        "momentum, right also in bfloat16",
        {"momentum": 0.9},
    ),
    Entry("sgd_sai", SGDSaI, "arXiv:2412.11768", "SGD with rates scaled by the first gradient"),
    Entry("sophia", Sophia, "arXiv:2305.14342", "momentum over the curvature, clipped"),
)
"""All optimizers that can be named, in alphabetical order."""


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
    raise ValueError(f"Unknown optimizer {name!r}. {hint}")
