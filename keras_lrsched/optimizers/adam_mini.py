"""Adam-mini: Adam with one second moment for each block of weights."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import keras_private, path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import Role
from keras_lrsched._core.types import FindRoles, LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import FusedOptions
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.fused_optimizer import FusedOptimizer


@register(
    "adam_mini",
    title="Adam with one second moment for each neuron or head",
    paper="arXiv:2406.16793",
    code=("https://pypi.org/project/adam-mini",),
    checked="trajectory",
    against="the authors' package adam-mini 1.1.1",
    deviations="kernels (out, in) of the authors have rows where Keras has columns",
    kind="optimizer",
)
class AdamMini(FusedOptimizer):
    """AdamW whose second moment is one number for each neuron, attention head or embedding.

        m = beta_1 m + (1 - beta_1) g
        v = beta_2 v + (1 - beta_2) mean of g^2 over the block
        w = (1 - lr weight_decay) w - lr (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)

    A rule selects which entries of a variable make a block:

    - a list of axes, each index of which is a block: `[0]` for the rows of an embedding, `[-1]` for the units of a `Dense`
      kernel, `[1]` for the heads of a kernel (features, heads, size), `[]` for the whole variable;
    - an int n, for n blocks of consecutive units in a kernel (features, units), such as n heads in one `Dense` layer;
    - `"entry"`, for each entry by itself, as in Adam.

    `default_blocks` is the rule where `blocks` has none: by the role of a variable in its layer, see `Role`. The authors'
    code searches the names of parameters for substrings: it takes `network` for an attention output (`wo`) and `monkey` for
    a key, and fails on a normalization called `output` and on kernels of convolutions. Its weight decay leaves out biases
    and normalizations: here `exclude_from_weight_decay` does it. State: one float32 number for each parameter and one for
    each block.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        blocks: A dictionary from regular expressions to rules, of which the first that is found in the path of a variable
            counts; or a function of a variable's path and shape that returns a rule, or `None` for the default one; register
            it with Keras if the optimizer is to be saved. Defaults to `None`, for the default rules.
        **options: See `keras_lrsched.optimizers.Optimizer`, and `fused`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if a rule does not fit its variable.

    Reference:
        Zhang et al., Adam-mini: Use Fewer Learning Rates To Gain More, arXiv:2406.16793. Trajectories agree with the
        authors' package adam-mini 1.1.1, whose (out, in) kernels have rows where Keras has columns.

    Example:

    >>> kernel = keras.Variable([[0.0, 0.0], [0.0, 0.0]], name="kernel")
    >>> AdamMini(learning_rate=0.1).apply([keras.ops.array([[1.0, 5.0], [7.0, 5.0]])], [kernel])
    >>> kernel.numpy().round(3)  # the root mean squares of both units are 5
    array([[-0.02, -0.1 ], [-0.14, -0.1 ]], dtype=float32)
    """

    state_names = ("m", "v")
    kernel = "adam_mini"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        blocks: Mapping[str, Sequence[int] | int | str] | None = None,
        **options: Unpack[FusedOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.blocks = blocks if callable(blocks) else _rules(blocks)

    def resolve_paths(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        super().resolve_paths(variables, find_roles)
        if callable(self.blocks):
            rules = [self.blocks(path_rules.path(variable), tuple(variable.shape)) for variable in variables]
        else:
            found = path_rules.first_match("blocks", self.blocks, variables, find_roles)
            rules = [self.blocks.get(rule) for rule in found]
        self._blocks = [_blocks(*each) for each in zip(rules, variables, find_roles(), strict=True)]

    def make_state(self, variable: Variable) -> dict[str, Any]:
        shape = self._blocks[keras_private.variable_index(self, variable)].shape
        return {"m": self.add_state(variable, "m"), "v": self.add_state(variable, "v", shape=shape)}

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        blocks = self._blocks[ctx.index]
        state.m = average(self.beta_1, state.m, g)
        state.v = average(self.beta_2, state.v, blocks.mean(ops.square(g)))
        m = state.m / bias_correction(self.beta_1, ctx.t)
        root = ops.sqrt(state.v / bias_correction(self.beta_2, ctx.t)) + self.epsilon
        return w - ctx.learning_rate * (m / blocks.spread(root) + ctx.weight_decay * w)

    def kernel_parameters(self, t: Tensor) -> dict[str, Tensor]:
        return {
            "beta_1": self.beta_1,
            "gradient_weight": 1 - self.beta_1,
            "beta_2": self.beta_2,
            "one_minus_beta_2": 1 - self.beta_2,
            "epsilon": self.epsilon,
            "correction_1": 1 / bias_correction(self.beta_1, t),
            "correction_2": 1 / bias_correction(self.beta_2, t),
        }

    def kernel_blocks(self, place: int) -> Sequence[int]:
        return self._blocks[place].neighbors

    def _unsuited(self, variables: Sequence[Variable]) -> str | None:
        if any(blocks.neighbors is None for blocks in getattr(self, "_blocks", ())):
            return f"they need blocks whose axes or columns lie side by side. Received: blocks={self.blocks!r}."
        return super()._unsuited(variables)


def default_blocks(role: Role) -> Any:
    """The rule of `AdamMini` for a variable of a Keras layer, by its `Role`.

    Biases and offsets have one second moment for each entry; embeddings for each row; `Dense` and recurrent kernels for each
    unit; projections of attention for each head of query and key, and for each unit of value and output. All else, such as
    scales of normalizations, kernels of convolutions and factors of LoRA, is one block.
    """
    name = role.path.rpartition("/")[2]
    if role.kind == "bias" or name == "beta":
        return "entry"
    if role.kind == "embedding":
        return list(role.inputs)
    is_kernel = role.kind in ("kernel", "recurrent_kernel") and (role.source != "shape" or re.search(r"kernel$", name))
    if not is_kernel or (role.source == "shape" and len(role.shape) > 2):
        return []
    if role.block in ("query", "key") and len(role.outputs) > 1:
        return [*role.stack, role.outputs[0]]
    return [*role.stack, *role.outputs]


class _AxisBlocks:
    """Blocks that are the indices of some axes."""

    def __init__(self, shape: Sequence[int], axes: Sequence[int]) -> None:
        self.shape = tuple(size if axis in axes else 1 for axis, size in enumerate(shape))
        self._others = tuple(axis for axis in range(len(shape)) if axis not in axes)
        self.neighbors = self._find_neighbors(shape, sorted(set(axes)))

    @staticmethod
    def _find_neighbors(shape: Sequence[int], axes: Any) -> tuple[int, int] | None:
        """The numbers of blocks and of neighbors in a row in each; `None` if there is something between the axes."""
        if not axes:
            return 1, math.prod(shape)
        if axes[-1] - axes[0] >= len(axes):
            return None
        return math.prod(shape[axis] for axis in axes), math.prod(shape[axes[-1] + 1 :])

    def mean(self, x: Tensor) -> Tensor:
        return ops.mean(x, axis=self._others, keepdims=True) if self._others else x

    def spread(self, x: Tensor) -> Tensor:
        return x


class _UnitBlocks:
    """Equal blocks of consecutive columns of a matrix."""

    def __init__(self, shape: Sequence[int], number: int) -> None:
        self.shape = (number, 1)
        self._columns, self._blocks = shape[::-1], (number, math.prod(shape) // number)
        self.neighbors = (number, shape[1] // number) if shape[1] % number == 0 else None

    def mean(self, x: Tensor) -> Tensor:
        return ops.mean(ops.reshape(ops.transpose(x), self._blocks), axis=1, keepdims=True)

    def spread(self, x: Tensor) -> Tensor:
        return ops.transpose(ops.reshape(ops.broadcast_to(x, self._blocks), self._columns))


def _rules(blocks: Any) -> Any:
    """A dictionary of checked rules, from a constructor argument that may be `None`."""
    blocks = {} if blocks is None else blocks
    if not isinstance(blocks, dict):
        raise ValueError(
            f"`blocks` must be a dictionary from regular expressions to rules, or a function. Received: blocks={blocks!r}"
        )
    return {pattern: _rule(blocks[pattern]) for pattern in path_rules.patterns("blocks", blocks)}


def _rule(rule: Any) -> Any:
    if rule == "entry":
        return rule
    if isinstance(rule, (list, tuple)) and all(isinstance(axis, int) and not isinstance(axis, bool) for axis in rule):
        return [*rule]
    if isinstance(rule, int) and not isinstance(rule, bool) and rule > 0:
        return rule
    raise ValueError(f'`blocks` must hold lists of axes, positive ints or "entry". Received: {rule!r}')


def _blocks(rule: Any, variable: Variable, role: Role) -> Any:
    """The blocks of one variable, for a rule or `None`."""
    path, shape = path_rules.path(variable), tuple(variable.shape)
    rule = _rule(default_blocks(role) if rule is None else rule)
    if rule == "entry":
        return _AxisBlocks(shape, range(len(shape)))
    if isinstance(rule, int):
        if len(shape) != 2 or math.prod(shape) % rule:
            raise ValueError(f"`blocks`: {path} of shape {shape} cannot be cut into {rule} blocks of units.")
        return _UnitBlocks(shape, rule)
    if any(not -len(shape) <= axis < len(shape) for axis in rule):
        raise ValueError(f"`blocks`: {path} of shape {shape} has not all of the axes {rule}.")
    return _AxisBlocks(shape, [axis % len(shape) for axis in rule])
