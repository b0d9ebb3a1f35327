"""LANTON: learning rates by the noise in the gradient of each layer, around Muon or Scion."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._update_context import UpdateContext
from keras_lrsched.optimizers.muon import Muon
from keras_lrsched.optimizers.scion import Scion
from keras_lrsched.optimizers.wrapper import OptimizerLike, Wrapper


@register(
    "noise_adaptive",
    title="Muon with learning rates by the noise in each layer's gradient",
    paper="arXiv:2510.14009",
    checked="memory",
    against="a derivation of ours from secondary texts, whose trajectory agrees",
    deviations=(
        "no code of the authors was found; alpha and beta_2 are not theirs; the dual norms of columns and rows are our "
        "own reading"
    ),
    kind="wrapper",
    options={"learning_rate": 0.02, "weight_decay": None, "adjust_lr": "original"},
)
class NoiseAdaptive(Wrapper):
    """Muon or Scion with a learning rate for each layer, that is lower where its gradient is noisier.

        H = beta_2 H + (1 - beta_2) ||G - G of the update before||^2           0 at first; the dual norm of the layer's
        a = alpha / sqrt(alpha^2 + H)
        lr of the layer = lr sqrt(a / the largest a of its group)

    A group are the layers with steps in one norm: all matrices of Muon; in Scion those with the same D, vectors and
    scalars too. The dual norm is the nuclear norm for orthogonalized steps, the L1 norm for signs, the sum of the L2
    norms of columns or rows, and the L2 norm for what is none of these. Nuclear norms are the product of G with its
    orthogonalized form, by the polynomials `"quintic"`, right to 0.5 %, or those that Muon is set to. Kernels of
    convolutions and projections of attention are matrices as the inner optimizer has them. What Muon leaves to AdamW
    has the learning rate itself, and a layer without a gradient keeps its H.

    State: one float32 number for each parameter of these layers, and one for each layer, beside the inner state.

    Args:
        optimizer: A `Muon`, an optimizer derived from it, or a `Scion`; also its config as for `keras.optimizers.get`.
        alpha: The noise at which a has fallen to 0.7, above 0: a norm of gradients. Defaults to `1`.
        beta_2: Decay rate of H, at least 0 and below 1. Defaults to `0.9`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range. If the inner optimizer is none of these.

    Reference:
        Noise-adaptive layerwise learning rates (LANTON), arXiv:2510.14009, from secondary texts.

    Example:

    >>> weights = [keras.Variable(keras.ops.zeros((2, 2)), name=name) for name in ("calm", "noisy")]
    >>> optimizer = NoiseAdaptive(Muon.original(1.0))
    >>> for sign in (1.0, -1.0):
    ...     optimizer.apply([keras.ops.eye(2), sign * keras.ops.eye(2)], weights)
    >>> optimizer.ratios().round(2)
    array([1.  , 0.78], dtype=float32)
    """

    inner_kind = Muon

    def __init__(self, optimizer: OptimizerLike, alpha: float = 1.0, beta_2: float = 0.9, name: str | None = None) -> None:
        super().__init__(optimizer, name)
        self.alpha = validation.positive_float("alpha", alpha)
        self.beta_2 = validation.beta("beta_2", beta_2)
        if not isinstance(self.inner_optimizer, (Muon, Scion)):
            raise ValueError(f"NoiseAdaptive is for Muon and Scion. Received: optimizer={optimizer!r}")

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:
            return
        super().build(variables)
        inner = self.inner_optimizer
        self._groups = [inner.norm_group(i) if inner._states[i] else None for i in range(len(inner._states))]
        for variable, state, group in zip(variables, inner._states, self._groups, strict=True):
            if group is not None:
                state["last_gradient"] = inner.add_state(variable, "last_gradient")
                state["noise"] = inner.add_state(variable, "noise", shape=(), initializer="zeros")
                state["seen"] = inner.add_state(variable, "seen", shape=(), initializer="zeros")
        inner.before_update = self._before(inner.before_update)

    def _before(self, update: Callable) -> Callable:
        """The inner `before_update`, for layers whose learning rates are scaled."""

        def before_update(contexts: Sequence[UpdateContext]) -> Any:
            adaptive = {ctx.index: ctx for ctx in contexts if self._groups[ctx.index] is not None}
            ratios = self._ratios(self._noise(adaptive)) if adaptive else {}
            for i, ctx in adaptive.items():
                ctx.learning_rate = ctx.learning_rate * ratios[i]
            return update(contexts)

        return before_update

    def _noise(self, contexts: Mapping[int, UpdateContext]) -> dict[int, Tensor]:
        """H of each layer with this gradient, which is stored with it."""
        changes = {i: ctx.gradient - ctx.state.last_gradient for i, ctx in contexts.items()}
        norms = self.inner_optimizer.dual_norms(changes)
        for i, ctx in contexts.items():
            state = ctx.state
            state.noise = ops.where(state.seen > 0, average(self.beta_2, state.noise, ops.square(norms[i])), state.noise)
            state.last_gradient, state.seen = ctx.gradient, ops.ones_like(state.seen)
        return {i: ctx.state.noise for i, ctx in contexts.items()}

    def _ratios(self, noise: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The learning rate of each layer in proportion to that of the calmest in its group."""
        each = {i: self.alpha / ops.sqrt(self.alpha**2 + h) for i, h in noise.items()}
        largest: dict[Any, Tensor] = {}
        for i, a in each.items():
            group = self._groups[i]
            largest[group] = ops.maximum(largest[group], a) if group in largest else a
        return {i: ops.sqrt(a / largest[self._groups[i]]) for i, a in each.items()}

    def ratios(self) -> Any:
        """Return the learning rates of the layers that have one of their own, as NumPy, in proportion to the common one."""
        states = self.inner_optimizer._states
        places = [i for i, group in enumerate(self._groups) if group is not None]
        noise = {i: ops.convert_to_tensor(states[i]["noise"]) for i in places}
        return ops.convert_to_numpy(ops.stack([*self._ratios(noise).values()]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "beta_2": self.beta_2}
