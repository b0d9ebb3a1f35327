"""The factors of each variable, from the roles and shapes of two models."""

import dataclasses
import math
import re
from collections.abc import Iterator

import keras

from keras_lrsched._core import path_rules
from keras_lrsched._core.roles import Role, Roles
from keras_lrsched._core.types import Patterns
from keras_lrsched.laws import scaling
from keras_lrsched.transfer._families import muon_factor
from keras_lrsched.transfer._plan import Plan, VariablePlan
from keras_lrsched.transfer._residual_branches import Branches
from keras_lrsched.transfer.parameterizations import (
    MULTIPLIER_POWERS,
    DepthMultipliers,
    output_power,
    width_multipliers,
)


@dataclasses.dataclass(frozen=True)
class Width:
    """The kind of a variable, and the ratios of its inputs and outputs to those of the base model."""

    kind: str
    inputs: float
    outputs: float


def width(base: Role, role: Role) -> Width:
    """The kind of a variable by which of its axes have grown.

    Raises:
        ValueError: If they have grown in a way that no rule is defined for.
    """
    ratios = [new / old for old, new in zip(base.shape, role.shape, strict=True)]
    if role.kind in ("lora_a", "lora_b"):
        raise ValueError(f"Factors of LoRA start from trained weights, which have no width rule. Received: {role.path}")
    if not role.inputs or not role.outputs or role.kind == "depthwise_kernel":
        wide = [ratio for ratio in ratios if ratio != 1]
        if len(wide) > 1 and role.kind not in ("bias", "normalization", "scale"):
            _raise_undefined(base, role, "has several wide axes, but is no matrix from inputs to outputs")
        return Width("vector", 1.0, math.prod(wide))
    inputs, outputs = (math.prod(ratios[axis] for axis in axes) for axes in (role.inputs, role.outputs))
    if role.kind == "embedding" and inputs != 1:
        _raise_undefined(base, role, "has another number of rows: vocabulary and positions must be those of the base model")
    if role.head and role.kind != "embedding" and outputs != 1:
        _raise_undefined(base, role, "has other outputs: those of the model must be those of the base model")
    return Width(_kind_of_matrix(role, inputs, outputs), inputs, outputs)


def _kind_of_matrix(role: Role, inputs: float, outputs: float) -> str:
    if role.kind == "embedding":
        return "input"
    if inputs == outputs == 1:  # where nothing grows, all kinds have factors of 1
        return "output" if role.head else "hidden"
    if inputs == 1:
        return "input"
    return "output" if outputs == 1 else "hidden"


def _raise_undefined(base: Role, role: Role, reason: str) -> None:
    raise ValueError(
        f"{role.path} {reason}. Correct the table of roles, `roles(model)`, if it is wrong. Received: shape={role.shape}, "
        f"in the base model {base.shape}"
    )


@dataclasses.dataclass(frozen=True)
class Planner:
    """The options of `apply`, checked."""

    rule: str
    optimizer: keras.optimizers.Optimizer
    family: str
    alignment: str
    weight_decay_power: float
    depth: DepthMultipliers
    branch_weights: tuple[float, float]
    batch_size: float
    tokens: float
    token_power: float
    folded: bool
    head_size: float | None

    def plan(self, table: Roles, base_table: list[Role], branches: Branches, sequential: set[str]) -> Plan:
        """The plan of a model, from the roles of its variables and of those in their places in the base model.

        `sequential` has the names of the sequential models in it.
        """
        widths = [width(base, role) for base, role in zip(base_table, table, strict=True)]
        growth = max([each.inputs for each in widths if each.kind == "output"] or [each.inputs for each in widths])
        tied = [role.path for role in table if role.kind == "embedding" and role.head]
        if tied and self.folded and growth != 1:
            raise ValueError(
                f"{', '.join(tied)} is both embedding and output kernel, whose factors differ: let the model multiply its "
                f"logits by {self.output_multiplier(growth):.6g}, and give `folded=False`."
            )
        rows = [
            self._variable(base, role, each, id(variable), branches, _pattern(role.path, sequential))
            for base, role, each, variable in zip(base_table, table, widths, table.variables or (), strict=True)
        ]
        _refuse_equal_patterns(rows)
        rate, steps = self._shared_learning_rate(), self.tokens / self.batch_size
        scales_epsilon = self.family in ("adam", "muon")
        sizes = [self._attention(base, role) for base, role in zip(base_table, table, strict=True)]
        return Plan(
            rows,
            self.optimizer,
            self.family,
            output_multiplier=self.output_multiplier(growth),
            attention_multiplier=min(sizes, key=lambda size: -abs(math.log(size))),
            branch_multiplier=self.depth.branch,
            folded=self.folded,
            learning_rate=rate,
            weight_decay=1 / (rate * steps),  # the timescale of the moving average of updates, as a part of the run
            epsilon=growth ** -output_power(self.rule) * self.depth.epsilon if scales_epsilon else 1.0,
            steps=steps,
            batch_size=self.batch_size,
        )

    def output_multiplier(self, growth: float) -> float:
        return 1 / growth if output_power(self.rule) == 1 else 1.0

    def _shared_learning_rate(self) -> float:
        scale = scaling.linear_scaling if self.family == "sgd" else scaling.square_root_scaling
        return scale(1.0, self.batch_size, 1) * scaling.token_horizon_ratio(self.tokens, 1, self.token_power)

    def _variable(self, base: Role, role: Role, ratios: Width, key: int, branches: Branches, pattern: str) -> VariablePlan:
        initial, rate = width_multipliers(ratios.kind, ratios.inputs, ratios.outputs, self.rule, self.family, self.alignment)
        if self.family == "muon":
            own = muon_factor(self.optimizer, base, role)
            rate = rate if own is None else own
        output = self.output_multiplier(ratios.inputs) if ratios.kind == "output" else 1.0
        branch = self.depth.branch * self._branch_weight(role) if key in branches.last else 1.0
        attention = self._attention(base, role)
        power = MULTIPLIER_POWERS[self.family]
        # The table of widths has the output's multiplier in the kernel.
        multiplier = attention * branch if self.folded else 1 / output
        decay = (rate / output**power) ** -self._decay_power()
        if key in branches.inside:
            rate *= self.depth.learning_rate
        in_kernel = output * attention * branch if self.folded else 1.0
        return VariablePlan(
            role.path, ratios.kind, initial * multiplier, rate * multiplier**power, decay * in_kernel**-power, pattern
        )

    def _decay_power(self) -> float:
        return 1.0 if self.family == "sgd" else self.weight_decay_power

    def _branch_weight(self, role: Role) -> float:
        attention, feed_forward = self.branch_weights
        if attention != feed_forward and role.kind == "normalization":
            raise ValueError(
                "`residual_attention_ratio` must be 1 where branches end in a normalization, which does not show what is "
                f"below it. Received: {role.path}"
            )
        return attention if role.block == "attention_output" else feed_forward

    def _attention(self, base: Role, role: Role) -> float:
        """The factor of queries, so that products with keys are divided by the size of a head, no longer by its root."""
        if role.block not in ("query", "query_key_value") or output_power(self.rule) != 1:
            return 1.0
        size = self.head_size
        if size is None and role.shape != base.shape:
            matrix_axes = {"kernel": 3, "bias": 2}.get(role.kind)
            if role.block != "query" or len(role.shape) != matrix_axes:
                raise ValueError(
                    f"`head_size` must be given as (base, new): {role.path} of shape {role.shape} does not show the size of "
                    "a head."
                )
            size = role.shape[-1] / base.shape[-1]
        if size not in (None, 1) and role.block == "query_key_value" and self.folded:
            raise ValueError(
                f"{role.path} has queries, keys and values in one: let the model multiply its queries by {size**-0.5:.6g}, "
                "and give `folded=False`."
            )
        return 1.0 if size is None else size**-0.5


def _pattern(path: str, sequential: set[str]) -> str:
    """A regular expression for a path in which the names of sequential models may be missing.

    Keras leaves them out of the paths of a model that it loads.
    """
    parts = [f"({re.escape(part)}/)?" if part in sequential else f"{re.escape(part)}/" for part in path.split("/")]
    return f"^{''.join(parts)[:-1]}$"


def _refuse_equal_patterns(rows: list[VariablePlan]) -> None:
    """Raise if variables of different factors have one path in a model that is loaded."""
    factors: dict[str, tuple] = {}
    for row in rows:
        own = (row.learning_rate, row.weight_decay)
        if factors.setdefault(re.sub(r"\([^()]*/\)\?", "", row.pattern), own) != own:
            raise ValueError(
                f"Layers of different factors have one name, which is one path in a saved model: {row.path}. Give "
                "the layers of sequential models names of their own."
            )


def in_places(base: Roles, table: Roles) -> list[Role]:
    """The roles of the base model in the order of another one: by path, or by order if Keras has numbered the layers.

    Raises:
        ValueError: If the variables do not correspond.
    """
    paths = [role.path for role in table]
    if len(set(paths)) < len(paths):
        twice = sorted({path for path in paths if paths.count(path) > 1})
        raise ValueError(
            f"Rules go by path, and several variables have these: {twice}. Give their layers names of their own."
        )
    known = {role.path: role for role in base}
    found = [known[path] for path in paths] if set(known) == set(paths) else list(base)
    for role, other in _pairs(table, found):
        if role is None or other is None or (role.kind, len(role.shape)) != (other.kind, len(other.shape)):
            raise ValueError(
                "`base_model` must have the variables of `model`, in other widths; for another depth, build it with the "
                f"depth of `model`, and give `depth`. Received: {len(base)} variables, and {len(table)} in `model`; the "
                f"first that differ are {other and other.path} and {role and role.path}."
            )
    return found


def _pairs(left: Roles, right: list[Role]) -> Iterator[tuple[Role | None, Role | None]]:
    rows = list(left)
    for i in range(max(len(rows), len(right))):
        yield rows[i] if i < len(rows) else None, right[i] if i < len(right) else None


def branches_by_path(table: Roles, inside: Patterns, last: Patterns) -> Branches:
    """The branches that a user has listed by rules.

    Raises:
        ValueError: If one is found in no path.
    """
    variables = list(table.variables or ())
    ids = []
    for name, rules in {"branches": inside, "branch_outputs": last}.items():
        others = path_rules.included(name, path_rules.patterns(name, rules), variables, lambda: list(table))
        ids.append({id(v) for v, is_other in zip(variables, others, strict=True) if not is_other})
    return Branches(*ids)
