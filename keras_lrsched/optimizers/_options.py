"""Arguments that constructors hand on to their base classes as `**options`, each with its type.

A method lists the arguments of its own formula; those of the base stand in one place. `Unpack[Options]` shows them to type
checkers and editors, `show_inherited_arguments` to `inspect.signature` and `help`.
"""

import inspect
from typing import Any, Literal, TypedDict

from keras_lrsched._core.roles import Roles
from keras_lrsched._core.types import Multipliers, Patterns


class KerasOptions(TypedDict, total=False):
    """Arguments of `keras.optimizers.Optimizer`."""

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None


class RuleOptions(TypedDict, total=False):
    """Rules of `keras_lrsched.optimizers.Optimizer` for gradients, steps and weight decay."""

    cautious: bool
    cautious_weight_decay: bool
    corrected_weight_decay: bool | float
    update_clipping: Literal[False, True, "direction"]
    norm_control: Literal["hyperball", "project", "relative", "brake"] | None
    norm_control_every: int
    exclude_from_norm_control: Patterns
    gradient_centralization: bool
    adaptive_clipping: float | None
    exclude_from_adaptive_clipping: Patterns
    z_clipping: float | None


class UnseededOptions(RuleOptions, total=False):
    """Arguments that `keras_lrsched.optimizers.Optimizer` has beside them, but for `seed`."""

    exclude_from_weight_decay: Patterns
    learning_rate_multipliers: Multipliers
    master_weights: bool | None
    stochastic_rounding: bool
    lazy_embeddings: bool
    nonfinite: Literal["propagate", "skip", "raise"]
    roles: Roles | None


class OwnOptions(UnseededOptions, total=False):
    """`UnseededOptions` and `seed`: for classes with the names of Keras' classes, which list Keras' arguments themselves."""

    seed: int | None


class Options(KerasOptions, OwnOptions, total=False):
    """Arguments that most methods hand on."""


class LowRankOptions(KerasOptions, UnseededOptions, total=False):
    """For methods that have a `seed` of their own."""


class OwnFusedOptions(OwnOptions, total=False):
    """`OwnOptions` of a `FusedOptimizer`."""

    fused: Literal["auto", True, False]


class FusedOptions(Options, total=False):
    """`Options` of a `FusedOptimizer`."""

    fused: Literal["auto", True, False]


def show_inherited_arguments(cls: type) -> None:
    """Put the arguments of the base class into the signature of the constructor, in place of `**options`."""
    if "__init__" not in vars(cls):
        return
    constructor = vars(cls)["__init__"]
    own = inspect.signature(constructor)
    by_kind = {parameter.kind: parameter.name for parameter in own.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in by_kind:
        return
    inherited = inspect.signature(_next_constructor(cls)).parameters.values()
    named = [each for each in own.parameters.values() if each.kind != inspect.Parameter.VAR_KEYWORD]
    handed_on = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for each in inherited
        if each.name not in own.parameters and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    constructor.__signature__ = own.replace(parameters=[*named, *handed_on])


def _next_constructor(cls: type) -> Any:
    """The `__init__` that `super().__init__` means in the class."""
    return next(vars(base)["__init__"] for base in cls.__mro__[1:] if "__init__" in vars(base))
