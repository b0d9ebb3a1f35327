"""TAG: second moments of earlier tasks slow down what they needed."""

from typing import Any, Literal, Unpack

import numpy as np
from keras import ops

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._numerics import average, bias_correction, norm
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "tag",
    title="task-based accumulated gradients for continual learning",
    paper="arXiv:2105.05155",
    code=("pranshu28/TAG",),
    checked="vectors",
    against="an own script of the authors' code, which was read",
    kind="optimizer",
)
class TAG(Optimizer):
    """RMSProp or Adam whose second moment counts those of earlier tasks, the more so the less their gradients agree.

        m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2          from 0 in each task
        V = exp(-b) v + sum over earlier tasks k of exp(-b cos(m, m_k)) v_k      in the first task V = v
        w = w - lr (g / (sqrt(V) + epsilon) + weight_decay w)                           if method is "rmsprop"
        w = w - lr (m / c_1 / (sqrt(V / c_2) + epsilon) + weight_decay w)               if it is "adam"

    The cosine is that of the whole variable, of whatever shape; c_1 and c_2 are the corrections of the bias with the number
    of updates within the task. Call `start_task()` before each task but the first, outside of the training step. State: for
    each parameter two float32 numbers for each of `tasks`.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        tasks: The largest number of tasks, at least 2. Defaults to `10`.
        b: How much earlier tasks count, at least 0. Defaults to `5.0`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.99`; `0.999` is that of the
            Adam form.
        epsilon: Added to the root. Defaults to `1e-8`.
        method: `"rmsprop"` or `"adam"`. Defaults to `"rmsprop"`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range; if `start_task()` is called before the first update, or for more
            than `tasks` of them.

    Reference:
        Malviya et al., TAG: Task-based Accumulated Gradients for Lifelong learning, arXiv:2105.05155. The authors' code,
        pranshu28/TAG, was read; trajectories agree with a script of it.

    Example:

    >>> w = keras.Variable([1.0])
    >>> optimizer = TAG(0.1, beta_2=0.0)
    >>> optimizer.apply([keras.ops.array([2.0])], [w])
    >>> optimizer.start_task()
    >>> optimizer.apply([keras.ops.array([-2.0])], [w])  # against the first: sqrt(V) is 2 exp(5 / 2)
    >>> w.numpy().round(4)
    array([0.9082], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        tasks: int = 10,
        b: float = 5.0,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        epsilon: float = 1e-8,
        method: Literal["rmsprop", "adam"] = "rmsprop",
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.tasks = validation.positive_int("tasks", tasks)
        if self.tasks < 2:
            raise ValueError(f"`tasks` must be at least 2. Received: tasks={tasks!r}")
        self.b = validation.non_negative_float("b", b)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.method = validation.one_of("method", method, ("rmsprop", "adam"))

    def make_state(self, variable: Variable) -> dict[str, Any]:
        earlier = (self.tasks - 1, *variable.shape)
        state = {name: self.add_state(variable, name) for name in ("m", "v")}
        return state | {name: self.add_state(variable, name, shape=earlier) for name in ("earlier_m", "earlier_v")}

    def make_scalars(self) -> dict[str, Any]:
        """The number of earlier tasks, and of updates in them."""
        return {name: self.add_scalar(name, 0, dtype="int32") for name in ("task", "before_task")}

    def start_task(self) -> None:
        """Keep the moments of the task that ends, and begin another one."""
        if not self.built:
            raise ValueError("`start_task()` is for each task but the first: there has been no update yet.")
        task = int(ops.convert_to_numpy(self._scalars["task"]))
        if task + 1 >= self.tasks:
            raise ValueError(f"There were {self.tasks} tasks already. Received: tasks={self.tasks}")
        for variables in filter(None, self._states):
            m, v = (np.array(ops.convert_to_numpy(variables[name])) for name in ("m", "v"))
            length = np.sqrt(np.sum(m.astype("float64") ** 2))
            for name, value in (("earlier_m", m / (length or 1.0)), ("earlier_v", v)):
                kept = np.array(ops.convert_to_numpy(variables[name]))
                kept[task] = value
                variables[name].assign(kept)
            for name in ("m", "v"):
                variables[name].assign(np.zeros_like(m))
        self._scalars["task"].assign(task + 1)
        updates = keras_private.iterations(self) // (self.gradient_accumulation_steps or 1)
        self._scalars["before_task"].assign(ops.cast(updates, "int32"))

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        state.m = average(self.beta_1, state.m, g)
        state.v = average(self.beta_2, state.v, ops.square(g))
        v = self._second_moment(state, ctx)
        if self.method == "rmsprop":
            u = g / (ops.sqrt(v) + self.epsilon)
        else:
            t = ctx.t - ops.cast(ctx.scalars.before_task, ctx.t.dtype)
            v = v / bias_correction(self.beta_2, t)
            u = state.m / bias_correction(self.beta_1, t) / (ops.sqrt(v) + self.epsilon)
        return w - ctx.learning_rate * (u + ctx.weight_decay * w)

    def _second_moment(self, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        """V: of tasks that are still to come, v_k is 0."""
        length, axes = norm(state.m), tuple(range(1, len(state.m.shape) + 1))
        m = state.m / ops.where(length > 0, length, 1.0)
        cosines = ops.sum(state.earlier_m * m, axis=axes, keepdims=True) if axes else state.earlier_m * m
        own = ops.where(ctx.scalars.task > 0, ops.exp(ops.cast(-self.b, m.dtype)), 1.0)
        return own * state.v + ops.sum(ops.exp(-self.b * cosines) * state.earlier_v, axis=0)
