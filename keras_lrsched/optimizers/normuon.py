"""NorMuon: Muon with a second moment for each neuron."""

import math
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._matrices import SplitView
from keras_lrsched.optimizers._numerics import average, matrix_norm
from keras_lrsched.optimizers._update_context import OptimizerState
from keras_lrsched.optimizers.muon import MatrixOptions, Muon


@register(
    "normuon",
    title="Muon with a second moment for each neuron",
    paper="arXiv:2510.05491",
    code=("zichongli5/NorMuon",),
    checked="trajectory",
    against="the authors' code without its bfloat16",
    deviations=(
        "the form of the paper is compared with a derivation of ours from a description of its Algorithm 1; "
        "the paper itself is unverified"
    ),
    kind="optimizer",
)
class NorMuon(Muon):
    """Muon whose orthogonalized momentum is normalized per neuron, so that none moves much more than the others.

        o = orthogonalized(u)                                   u and q as in `Muon`
        v = beta_2 v + (1 - beta_2) mean of o^2 over inputs     one number for each output
        p = o / (sqrt(v) + 1e-10)
        w = (1 - lr weight_decay) w - lr q (||o|| / ||p||) p

    v needs no bias correction, as ||p|| takes it out. This is the authors' code. Their paper has another length of the step,
    a root mean square of 0.2 lr, which is `adjust_lr="match_rms_adamw"`, and m in place of u, which is `nesterov=False`. The
    learning rates of the two differ by a factor that depends on shape and spectrum. The same variables as in `Muon` are left
    to AdamW. State: one float32 number for each parameter and one for each neuron under NorMuon, two for each parameter
    under AdamW.

    The authors' code fails on float32 variables, and for convolutions it normalizes over the axes of the kernel's width;
    here neurons are outputs everywhere.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `0.02`.
        beta_2: Decay rate of the second moment, at least 0 and below 1. Defaults to `0.95`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        adjust_lr: The factor q: `"original"`, `"match_rms_adamw"` or `"spectral_norm"`. Defaults to `"original"`.
        adam_lr_ratio: The learning rate of AdamW, divided by that of NorMuon. Defaults to `0.015`, so 3e-4 beside 0.02.
        adam_beta_2: As in AdamW. Defaults to `0.95`.
        adam_weight_decay: The weight decay under AdamW. Defaults to `None`, for that of NorMuon.
        epsilon: As in AdamW. Defaults to `1e-10`.
        **options: See `Muon`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Li et al., NorMuon: Making Muon more efficient and scalable, arXiv:2510.05491. Trajectories agree with the authors'
        code, zichongli5/NorMuon, if its bfloat16 is removed; the form of the paper, with a derivation of our own from a
        description of its Algorithm 1, as the paper itself is unverified.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((2, 3)))
    >>> NorMuon(learning_rate=1.0).apply([keras.ops.array([[4.0, 0.1, 2.0], [1.0, 0.2, -3.0]])], [w])
    >>> keras.ops.norm(w, axis=0).numpy().round(3)  # each neuron
    array([0.934, 0.934, 0.934], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.02,
        beta_2: float = 0.95,
        weight_decay: WeightDecay = None,
        adjust_lr: str = "original",
        adam_lr_ratio: float = 0.015,
        adam_beta_2: float = 0.95,
        adam_weight_decay: WeightDecay = None,
        epsilon: float = 1e-10,
        **options: Unpack[MatrixOptions],
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            adjust_lr=adjust_lr,
            adam_lr_ratio=adam_lr_ratio,
            adam_beta_2=adam_beta_2,
            adam_weight_decay=adam_weight_decay,
            epsilon=epsilon,
            **options,
        )
        self.beta_2 = validation.beta("beta_2", beta_2)

    def _current_adam_decay(self) -> Any:
        return self._current_weight_decay() if self.adam_weight_decay is None else super()._current_adam_decay()

    def make_matrix_state(self, variable: Variable, view: Any) -> dict[str, Any]:
        if isinstance(view, SplitView):
            raise ValueError(
                f"NorMuon has no second moments for `blocks` of different sizes, nor where axes of outputs lie apart. "
                f"Received: blocks={self.blocks!r} for {path_rules.path(variable)}"
            )
        shape = (view.outputs,) if view.stack is None else (view.stack, view.outputs)
        return {**super().make_matrix_state(variable, view), "v": self.add_state(variable, "v", shape=shape)}

    def matrix_step(self, o: Tensor, state: OptimizerState, view: Any) -> Tensor:
        state.v = average(self.beta_2, state.v, ops.mean(ops.square(o), axis=-2))
        p = o / (ops.sqrt(ops.expand_dims(state.v, -2)) + 1e-10)
        return self._length(o) / (matrix_norm(p) + 1e-10) * p

    def _length(self, o: Tensor) -> Tensor:
        if self.adjust_lr == "match_rms_adamw" and self.rms_rate is not None:
            return self.rms_rate * math.sqrt(math.prod(o.shape[-2:]))
        return self.scale_of(*o.shape[-2:]) * matrix_norm(o)
