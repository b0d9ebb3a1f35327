"""Muon: momentum, orthogonalized."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

from keras import ops

from keras_lrsched._core import path_rules, registry, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Patterns, Tensor, WeightDecay
from keras_lrsched.optimizers import _newton_schulz
from keras_lrsched.optimizers._matrices import block_sizes
from keras_lrsched.optimizers._matrix_optimizer import HiddenMatrixOptions, MatrixOptimizer
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._options import OwnOptions
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


class MatrixOptions(HiddenMatrixOptions, total=False):
    """Arguments of `Muon` that a method derived from it may hand on."""

    adam_beta_1: float
    muon_a: float
    muon_b: float
    muon_c: float
    momentum: float
    ns_steps: int
    nesterov: bool
    rms_rate: float | None
    ns_dtype: str
    orthogonalize: str | Sequence[Sequence[float]]
    per_head: bool
    blocks: Mapping[str, int | Sequence[int]] | None


class MuonOptions(MatrixOptions, total=False):
    """All arguments of `Muon` but the learning rate."""

    adam_beta_2: float
    adam_weight_decay: WeightDecay
    epsilon: float
    weight_decay: WeightDecay
    adam_lr_ratio: float
    adjust_lr: str


@register(
    "muon",
    title="orthogonalized momentum for matrices",
    paper="https://kellerjordan.github.io/posts/muon",
    code=("KellerJordan/Muon", "pytorch/pytorch", "keras-team/keras", "microsoft/dion", "NVIDIA-NeMo/Emerging-Optimizers"),
    checked="trajectory",
    against="the authors' code without its bfloat16, PyTorch, Keras; for tables and blocks microsoft/dion and NVIDIA's code",
    deviations="Moonlight was read, not run",
    kind="optimizer",
    options={
        "learning_rate": 0.02,
        "weight_decay": None,
        "adjust_lr": "original",
        "adam_lr_ratio": 0.015,
        "adam_beta_2": 0.95,
        "adam_weight_decay": None,
        "epsilon": 1e-10,
    },
)
class Muon(MatrixOptimizer):
    """Momentum with all its singular values set to about 1, for matrices of hidden layers; AdamW for all else.

        m = momentum m + (1 - momentum) g
        u = momentum m + (1 - momentum) g         if nesterov, else m
        w = (1 - lr weight_decay) w - lr q orthogonalized(u)
        q = rms_rate sqrt(max(outputs, inputs)) to match the length of AdamW's steps, or sqrt(max(1, outputs / inputs)),
            or sqrt(outputs / inputs)

    A variable is a matrix (inputs, outputs) by its role in its layer, see `Role`: axes that the layer sums over are inputs.
    So in the kernel of a convolution all axes but the last are inputs; of a transposed one, (height, width, outputs,
    inputs), the last; in an attention layer those of the equation of the `EinsumDense`, such as the features in
    (features, heads, size), or Gemma's (heads, features, size). The heads together are one matrix, as the authors' code,
    Moonlight and PyTorch have them, where projections have two axes; `per_head` makes them a matrix each, and `blocks` cuts
    other matrices, such as one of query, key and value. Several matrices in one variable, such as the experts of a mixture,
    are orthogonalized each by itself. Factors of LoRA are matrices. `input_axes` sets it for single variables, and brings
    them under Muon whatever they are.

    AdamW, with `adam_lr_ratio` lr and `adam_weight_decay`, updates all else: biases, normalizations, embeddings (also tables
    of positions, class tokens, the output matrix of a `ReversibleEmbedding`), kernels of depthwise convolutions, which are
    vectors for each channel, slopes and gains; output layers of functional and sequential models, in whose graphs they are
    found; and what `exclude_layers` lists, where the last layer of any other model should be. `optimizer.roles()` shows how
    each variable is taken. What has more than two axes, and a layer that is not known, is taken as (..., outputs), with a
    warning.

    The arguments of `keras.optimizers.Muon` in its order, with its defaults, and its values in matrices. It leaves variables
    with more than two axes to AdamW, and those with `embedding` anywhere in their paths, but no output layer; AdamW differs
    from Keras' as `AdamW` does. `keras.optimizers.get("Muon")` is Keras' own. Others:

    - The authors' code: `Muon.original()`, with `ns_dtype="bfloat16"`. For convolutions it takes q from the last two axes of
      (out, in, height, width), so 1; here it is that of the matrix. A depthwise kernel is (channels, height x width) there.
    - `torch.optim.Muon`: `ns_dtype="bfloat16", weight_decay=0.1`, and `adjust_lr` as its `adjust_lr_fn`.
    - Moonlight: `weight_decay=0.1, adam_weight_decay=0.1, adam_beta_2=0.95, epsilon=1e-8`. Its momentum is a sum, which
      orthogonalization makes the same.
    - microsoft/dion: `orthogonalize="polar_express", adjust_lr="spectral_norm"`, its `num_heads` and `split_sizes` as
      `blocks`. Its momentum is a sum, too.

    optax mixes m and g in another way in the first updates, which is not offered. State: one float32 number for each
    parameter under Muon, two under AdamW.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        adam_beta_1: As in AdamW. Defaults to `0.9`.
        adam_beta_2: As in AdamW. Defaults to `0.999`.
        adam_weight_decay: The weight decay under AdamW: a number, a `LearningRateSchedule`, or `None`. Defaults to `0.004`.
        epsilon: As in AdamW. Defaults to `1e-7`.
        weight_decay: The weight decay under Muon: a number, a `LearningRateSchedule`, or `None`. Defaults to `0.004`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps, name: As in Keras.
        exclude_layers: Regular expressions; AdamW updates a variable if one is found in its path. Defaults to `None`, for
            none.
        exclude_embeddings: Whether AdamW updates embeddings. Defaults to `True`.
        muon_a, muon_b, muon_c: Coefficients of the iteration `"newton_schulz"`. Default to `3.4445`, `-4.775` and `2.0315`.
        adam_lr_ratio: The learning rate of AdamW, divided by that of Muon. Defaults to `1`.
        momentum: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.95`.
        ns_steps: The number of Newton-Schulz iterations. Defaults to `5`.
        nesterov: Whether to look one gradient ahead. Defaults to `True`.
        rms_rate: The root mean square of an update at a learning rate of 1; `None` for q = 1. Defaults to `0.2`.
        ns_dtype: The precision of these. `"bfloat16"` is faster on GPUs and TPUs, and right to 2 or 3 digits. Defaults to
            `"float32"`.
        adjust_lr: The factor q: `"match_rms_adamw"`, which is Moonshot's, or without a use for `rms_rate`, `"original"` or
            `"spectral_norm"`. The same ratio to AdamW at any momentum has a `rms_rate` of sqrt((1 - adam_beta_1) / (1 +
            adam_beta_1)), so 0.229. Defaults to `"match_rms_adamw"`.
        input_axes: A dictionary from regular expressions to how many of the first axes of a kernel are inputs. Defaults to
            `None`, as above.
        orthogonalize: The polynomials: `"newton_schulz"`, the authors'; `"polar_express"` and `"quintic"`, a different one
            in each of five iterations, which bring singular values closer to 1; or a list of the coefficients (a, b, c) of
            each iteration. Beyond the end of the list, the last ones are used again. Defaults to `"newton_schulz"`.
        per_head: Whether each head of an attention layer whose projections have an axis for heads is a matrix of its own:
            (features, size), or for the output (size, features). Defaults to `False`.
        blocks: A dictionary from regular expressions, or words such as `"role:query_key_value"`, to the number of equal
            blocks of a matrix, or a list of their sizes. They cut its outputs; in the output of an attention layer, its
            inputs. Each has its own factor q. Defaults to `None`, for none.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if a variable has no more axes than in
            `input_axes`, if `blocks` do not divide a matrix, or if `per_head` finds no heads.

    Reference:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024,
        https://kellerjordan.github.io/posts/muon. Trajectories agree with the authors' code, KellerJordan/Muon, exactly if
        its bfloat16 is removed, and with PyTorch and Keras; `orthogonalize`, `blocks` and other factors with microsoft/dion
        and NVIDIA's Emerging-Optimizers. Moonlight was read, not run. Amsel et al., The Polar Express, arXiv:2505.16932.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((3, 3)))
    >>> Muon.original(learning_rate=1.0).apply([keras.ops.diag([4.0, 0.1, 2.0])], [w])
    >>> (-w.numpy().diagonal()).round(1)
    array([0.7, 0.8, 1.1], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.999,
        adam_weight_decay: WeightDecay = 0.004,
        epsilon: float = 1e-7,
        weight_decay: WeightDecay = 0.004,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        exclude_layers: Patterns = None,
        exclude_embeddings: bool = True,
        muon_a: float = 3.4445,
        muon_b: float = -4.775,
        muon_c: float = 2.0315,
        adam_lr_ratio: float = 1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        nesterov: bool = True,
        rms_rate: float | None = 0.2,
        ns_dtype: str = "float32",
        adjust_lr: str = "match_rms_adamw",
        input_axes: Mapping[str, int] | None = None,
        orthogonalize: str | Sequence[Sequence[float]] = "newton_schulz",
        per_head: bool = False,
        blocks: Mapping[str, int | Sequence[int]] | None = None,
        **options: Unpack[OwnOptions],
    ) -> None:
        super().__init__(
            learning_rate,
            adam_beta_1,
            adam_beta_2,
            adam_weight_decay,
            epsilon,
            weight_decay,
            adam_lr_ratio,
            exclude_layers,
            exclude_embeddings,
            input_axes,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **options,
        )
        self.muon_a = validation.finite_float("muon_a", muon_a)
        self.muon_b = validation.finite_float("muon_b", muon_b)
        self.muon_c = validation.finite_float("muon_c", muon_c)
        self.momentum = validation.beta("momentum", momentum)
        self.ns_steps = validation.positive_int("ns_steps", ns_steps)
        self.nesterov = nesterov
        self.rms_rate = None if rms_rate is None else validation.positive_float("rms_rate", rms_rate)
        self.ns_dtype = validation.one_of("ns_dtype", ns_dtype, ("float32", "bfloat16"))
        self.adjust_lr = validation.one_of("adjust_lr", adjust_lr, ("original", "match_rms_adamw", "spectral_norm"))
        self.orthogonalize = _newton_schulz.checked(orthogonalize)
        self.per_head = per_head
        self.blocks = path_rules.numbers("blocks", blocks, block_sizes)
        own = (self.muon_a, self.muon_b, self.muon_c)
        if orthogonalize != "newton_schulz" and own != _newton_schulz.NEWTON_SCHULZ[0]:
            raise ValueError(
                "`muon_a`, `muon_b` and `muon_c` are the coefficients of `orthogonalize='newton_schulz'`. "
                f"Received: orthogonalize={orthogonalize!r}, coefficients {own}"
            )

    @classmethod
    def original(cls, learning_rate: LearningRate = 0.02, **options: Unpack[MuonOptions]) -> Self:
        """Return the optimizer with the defaults of the authors' code: no decay, and AdamW with 3e-4 beside 0.02."""
        published = registry.find("optimizers", "muon").options
        return cls(**{**published, "learning_rate": learning_rate, **options})

    def matrix_steps(self, contexts: Sequence[UpdateContext], views: Sequence[Any]) -> list[Tensor]:
        momenta = [view.matrices(self._momentum(ctx)) for ctx, view in zip(contexts, views, strict=True)]
        results = iter(self._orthogonalized([matrix for matrices in momenta for matrix in matrices]))
        return [
            view.assembled([self.matrix_step(next(results), ctx.state, view) for _ in matrices])
            for ctx, view, matrices in zip(contexts, views, momenta, strict=True)
        ]

    def matrix_step(self, o: Tensor, state: OptimizerState, view: Any) -> Tensor:
        """The step of a matrix (inputs, outputs), or of each of several, from their orthogonalized momentum."""
        return self.scale_of(*o.shape[-2:]) * o

    def _momentum(self, ctx: UpdateContext) -> Tensor:
        m = ctx.state.momentum = average(self.momentum, ctx.state.momentum, ctx.gradient)
        u = average(self.momentum, m, ctx.gradient) if self.nesterov else m
        return self.agreeing(u, ctx.gradient, m) if self.cautious else u

    def masks_within_step(self, index: int) -> bool:
        return self.has_matrix(index)

    def _orthogonalized(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        name = self.orthogonalize if isinstance(self.orthogonalize, str) else ""
        own = [(self.muon_a, self.muon_b, self.muon_c)]
        table = own if name == "newton_schulz" else _newton_schulz.TABLES.get(name, self.orthogonalize)
        safety, epsilon = _newton_schulz.SAFETY.get(name, (1.0, 1e-7))
        if name in _newton_schulz.SAFETY:  # added to a momentum that is a sum
            epsilon *= 1 - self.momentum
        return _newton_schulz.orthogonalized_all(matrices, self.ns_steps, self.ns_dtype, table, safety, epsilon)

    def norm_group(self, index: int) -> str | None:
        """The norm in which the steps of a variable have equal lengths, for `NoiseAdaptive`; `None` under AdamW."""
        return "spectral" if self.has_matrix(index) else None

    def dual_norms(self, gradients: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The nuclear norm of each of some gradients, by the places of their variables; of several matrices, the sum."""
        matrices = [matrix for i, g in gradients.items() for matrix in self._views[i].matrices(g)]  # type: ignore[union-attr]
        if self.orthogonalize == "newton_schulz":
            results = iter(_newton_schulz.orthogonalized_all(matrices, 5, table=_newton_schulz.QUINTIC))
        else:
            results = iter(self._orthogonalized(matrices))
        return {
            i: sum(ops.sum(matrix * next(results)) for matrix in self._views[i].matrices(g))  # type: ignore[union-attr]
            for i, g in gradients.items()
        }

    def scale_of(self, inputs: int, outputs: int) -> float:
        """The factor q of the step of a matrix."""
        if self.adjust_lr == "original":
            return math.sqrt(max(1, outputs / inputs))
        if self.adjust_lr == "spectral_norm":
            return math.sqrt(outputs / inputs)
        return 1.0 if self.rms_rate is None else self.rms_rate * math.sqrt(max(inputs, outputs))
