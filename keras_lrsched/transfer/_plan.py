"""Plans: a factor for the initial values, learning rate and weight decay of each variable, and for what all share."""

from dataclasses import dataclass, fields
from typing import Any

import keras

from keras_lrsched.laws.scaling import beta_2_for_batch_size
from keras_lrsched.optimizers.layerwise_learning_rate import LayerwiseLearningRate
from keras_lrsched.schedules import Scale


@dataclass(frozen=True)
class VariablePlan:
    """The factors of one variable, relative to the base model.

    Attributes:
        path: The path of the variable.
        kind: `"input"`, `"hidden"`, `"output"` or `"vector"`, see `width_multipliers`.
        initial: The factor of the standard deviation of its initial values.
        learning_rate: The factor of its learning rate.
        weight_decay: The factor of its weight decay, which is multiplied by its learning rate, too.
        pattern: The regular expression by which the optimizer finds it, also in a model that was loaded.
    """

    path: str
    kind: str
    initial: float
    learning_rate: float
    weight_decay: float
    pattern: str


@dataclass(frozen=True)
class Plan:
    """All that changes from a base model to another one; `print` shows it as a table.

    Attributes:
        variables: A list of `VariablePlan`.
        optimizer: The optimizer for the model, to be compiled with, with all these factors.
        family: `"adam"`, `"sgd"`, `"adafactor"` or `"muon"`: whose learning rates the table has.
        output_multiplier: The factor of the logits.
        attention_multiplier: The factor of the logits of attention, beside the 1 / sqrt(size) that layers have.
        branch_multiplier: The factor of the residual branches.
        folded: Whether these three are part of the kernels. If not, the model multiplies by them.
        learning_rate: The factor of all learning rates, for the batch size and the tokens.
        weight_decay: The factor of all weight decay, for the same.
        epsilon: The factor of the epsilon of Adam and the like.
        steps: The factor of the number of updates.
        batch_size: The factor of the batch size. `beta_2` has it as its power.
    """

    variables: list[VariablePlan]
    optimizer: keras.optimizers.Optimizer
    family: str
    output_multiplier: float = 1.0
    attention_multiplier: float = 1.0
    branch_multiplier: float = 1.0
    folded: bool = True
    learning_rate: float = 1.0
    weight_decay: float = 1.0
    epsilon: float = 1.0
    steps: float = 1.0
    batch_size: float = 1.0

    def __getitem__(self, path: str) -> VariablePlan:
        return {each.path: each for each in self.variables}[path]

    def __str__(self) -> str:
        names = [field.name for field in fields(VariablePlan)[:-1]]
        lines = [names, *([_cell(getattr(each, name)) for name in names] for each in self.variables)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        shared = [f"{field.name}: {_cell(getattr(self, field.name))}" for field in fields(self)[2:]]
        return "\n".join([*rows, "", *shared])


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def planned_optimizer(plan: Plan) -> LayerwiseLearningRate:
    """A new optimizer like the one of a plan, with the factors of the plan."""
    inner = plan.optimizer
    config = inner.get_config()
    factors = {"learning_rate": plan.learning_rate, "weight_decay": plan.weight_decay, "epsilon": plan.epsilon}
    factors["adam_weight_decay"] = plan.weight_decay
    for name, factor in factors.items():
        if config.get(name) is not None and factor != 1:
            config[name] = _scaled(config[name], factor)
    for name in ("beta_2", "adam_beta_2"):
        if config.get(name) is not None and plan.batch_size != 1:
            config[name] = beta_2_for_batch_size(config[name], plan.batch_size, 1)
    decays = {each.pattern: each.weight_decay for each in plan.variables if each.weight_decay != 1}
    return LayerwiseLearningRate(
        type(inner).from_config(config),
        {each.pattern: each.learning_rate for each in plan.variables if each.learning_rate != 1},
        decays if inner.weight_decay else None,
    )


def _scaled(value: Any, factor: float) -> Any:
    """A number, or the configuration of a schedule, times a factor."""
    if isinstance(value, dict):
        return keras.saving.serialize_keras_object(Scale(keras.saving.deserialize_keras_object(value), factor))
    return value * factor
