"""The cases of the optimizer contract, collected from the modules beside this file: a new module joins by existing."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

from keras_lrsched.optimizers import Optimizer


@dataclass(frozen=True)
class Trajectory:
    """A reference run: the weights after each update of `kernel` (3, 4) and `bias` (5,) in `optimizer_problem`."""

    run: str
    """Its name in optimizers_ref.json."""
    options: dict
    """Constructor arguments."""
    rtol: float = 1e-6
    variables: tuple[str, ...] = ("kernel", "bias")
    """Those that are compared; the reference of some methods has the kernel only."""
    transposed: bool = False
    """Whether the reference has the kernel as (out, in) and the method minds; it is then given and compared transposed."""
    before_update: Callable[[Optimizer, int, dict], None] = lambda optimizer, t, run: None
    """Called before update t with the optimizer and the reference run, for values that a method gets from outside."""


BY_DAY = (
    "AdamMini",
    "AdamW",
    "Adafactor",
    "DAdaptAdam",
    "DoG",
    "ElasticWeightConsolidation",
    "GaLore",
    "Lamb",
    "LayerwiseLearningRate",
    "Lion",
    "LocalUpdates",
    "Lookahead",
    "MoMo",
    "Muon",
    "OASIS",
    "Prodigy",
    "SGD",
    "ScheduleFreeAdamW",
    "Sophia",
)
"""Methods of each kind, whose behavior is tested by day. That of the others, for which the base class does the same, is
tested at night."""


@dataclass(frozen=True)
class Case:
    """One optimizer: its reference runs, and what it does in the tests that all pass."""

    optimizer: type[Optimizer]
    trajectories: tuple[Trajectory, ...]
    options: dict = field(default_factory=dict)
    """Constructor arguments in all tests of behavior; with a learning rate that suits variables of size 1."""
    quadratic_rate: float = 0.1
    """The learning rate from which a linear decay in 300 updates comes to the minimum of a quadratic."""
    digits_rate: float = 1e-2
    """The learning rate of a classifier of digits, for 3 epochs."""
    state_bytes: float | None = None
    """For each parameter of a (64, 32) matrix."""
    loss: float | None = None
    """The loss that a method needs before each update, passed where no `fit` passes it."""
    bad: tuple[dict, ...] = ()
    """Constructor arguments that must raise ValueError."""
    differs: dict[str, str] = field(default_factory=dict)
    """Name of a test -> why the method cannot pass it, which is also in its docstring."""

    @property
    def name(self):
        return self.optimizer.__name__

    @property
    def by_day(self):
        """True if its behavior is tested by `make test`, and not only its formula and its arguments."""
        return self.name in BY_DAY

    def build(self, **options):
        return self.optimizer(**{**self.options, **options})


CASES = [
    case for module in pkgutil.iter_modules(__path__) for case in importlib.import_module(f"{__name__}.{module.name}").CASES
]
