"""Moments of optimizers in 8 bits."""

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from keras_lrsched import kernels, optimizers
from keras_lrsched._core import backends, keras_private, path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched.optimizers.fused_optimizer import FusedOptimizer
from keras_lrsched.optimizers.wrapper import Wrapper
from keras_lrsched.precision._coded_moment import KINDS, CodedMoment

MOMENTS = {
    keras.optimizers.Adam: {"momentum": True, "velocity": False, "velocity_hat": False},
    keras.optimizers.Adamax: {"momentum": True, "norm": False},
    keras.optimizers.Lion: {"momentum": True},
    optimizers.AdaBound: {"m": True, "v": False, "v_max": False},
    optimizers.AdamAtan2: {"m": True, "v": False},
    optimizers.AdamMini: {"m": True},
    optimizers.AdaMomentum: {"m": True, "v": False},
    optimizers.AdamW: {"m": True, "v": False},
    optimizers.Lamb: {"m": True, "v": False},
    optimizers.Lion: {"momentum": True},
    optimizers.RectifiedAdam: {"m": True, "v": False},
}
"""The state of each optimizer that is kept in 8 bits, and whether it has a sign."""


@register(
    title="moments of optimizers in 8 bits",
    paper="arXiv:2110.02861",
    code=("bitsandbytes-foundation/bitsandbytes", "NVlabs/COAT"),
    checked="vectors",
    against='codes of `"blockwise8"`: bitsandbytes 0.50.2; `"coat"` (arXiv:2410.19313): NVlabs/COAT was read, not run',
    deviations="blocks of zeros, and second moments that bitsandbytes rounds to 0; five bytes a group for `coat`, not 12",
    kind="optimizer state",
)
class QuantizedState(Wrapper):
    """An optimizer of the Adam family, or Lion, with its moments in 8 bits in place of 32.

        moments = decode(codes);  update of one variable, in float32;  codes = encode(moments)

    `"blockwise8"`: the nearest of 256 numbers, which lie ever closer to 0, in units of the largest magnitude of 256
    neighbors: 1.016 bytes for each number. `"coat"`: FP8 E4M3 of x^k, with k such that 128 neighbors fill its range:
    1.039 bytes. State of Adam: 2.03 and 2.08 bytes for each parameter; float32 has 8. One moment at a time is float32, for
    as long as its variable is updated; compiled code may keep more of them.

    The inner optimizer has the learning rate, which is seen and set through this one, the counter of updates, clipping,
    weight decay, averages of weights and gradient accumulation. These last two stay in the dtype that they have there.
    Variables in float64 keep their moments as they are. `AdamW` and `Lion` of this package have a compiled update for
    blocks of 128 to 4096, a power of two; it follows their `fused`. Its codes of `"coat"` are those of Keras operations but
    for a few in a hundred thousand, one step away, where the last bits of a logarithm or a power decide.

    Args:
        optimizer: The inner optimizer, before it is built: `Adam`, `AdamW`, `Adamax` or `Lion` of Keras, or `AdaBound`,
            `AdamAtan2`, `AdaMomentum`, `AdamW`, `Lamb`, `Lion`, `RectifiedAdam` or `AdamMini` (its first moment; the second
            has few numbers) of this package; also its name or config as for `keras.optimizers.get`.
        kind: `"blockwise8"` or `"coat"`.
        block_size: How many neighbors share a scale. Defaults to `None`: 256 for `"blockwise8"`, where the paper has 2048,
            and 128 for `"coat"`.
        min_size: Variables with fewer entries keep float32 moments. Defaults to `4096`.
        exclude_from_quantization: Regular expressions; a variable keeps float32 moments if one is found in its path. The
            authors of `"blockwise8"` do so for embeddings: `["embedding"]`. Defaults to `None`, for none.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range. If the inner optimizer is none of these, has been built, is a wrapper
            (which belongs around this one, `LossScaleOptimizer` too; `compile` puts that one there), or has quantized state
            already. If it must use a compiled update and there is none, or `lazy_embeddings`. When it is built, if a regular
            expression is found in no path, or if there are several replicas.

    Reference:
        Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861. Codes agree with bitsandbytes
        0.50.2, except for blocks of zeros and second moments that it rounds to 0, see `quantize_blockwise`. Xi et al., COAT,
        arXiv:2410.19313: written after the paper and a reading of NVlabs/COAT, which has three float32 numbers for each
        group, together 2.19 bytes for each parameter.

    Example:

    >>> w = keras.Variable(ops.ones((64, 64)))
    >>> optimizer = QuantizedState(optimizers.AdamW(0.5, weight_decay=None), "blockwise8")
    >>> optimizer.apply([ops.ones((64, 64))], [w])
    >>> round(float(w[0, 0]), 6), optimizer.state_bytes_per_parameter()
    (0.5, 2.03125)
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer | str | Mapping[str, Any],
        kind: str,
        block_size: int | None = None,
        min_size: int = 4096,
        exclude_from_quantization: str | Iterable[str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(optimizer, name)
        self.kind = validation.one_of("kind", kind, tuple(KINDS))
        self.block_size = None if block_size is None else validation.positive_int("block_size", block_size)
        self.min_size = validation.positive_int("min_size", min_size)
        self.exclude_from_quantization = path_rules.patterns("exclude_from_quantization", exclude_from_quantization)
        self._signs = next((signs for known, signs in MOMENTS.items() if isinstance(self.inner_optimizer, known)), {})
        self._refuse(optimizer)
        if isinstance(self.inner_optimizer, FusedOptimizer) and not self._has_kernel():  # kernels would read float32
            self.inner_optimizer.fused = False

    def _refuse(self, optimizer: Any) -> None:
        inner = self.inner_optimizer
        if isinstance(inner, QuantizedState):
            raise ValueError(f"The state is quantized already. Received: optimizer={optimizer!r}")
        if isinstance(inner, Wrapper):
            raise ValueError(f"QuantizedState belongs inside {type(inner).__name__}. Received: optimizer={optimizer!r}")
        if not self._signs:
            known = ", ".join(sorted({each.__name__ for each in MOMENTS}))
            raise ValueError(f"`optimizer` must be one whose moments are known: {known}. Received: optimizer={optimizer!r}")
        if inner.built:
            raise ValueError(
                f"`optimizer` has float32 state already: it must not be built. Received: optimizer={optimizer!r}"
            )
        refused = ("lazy_embeddings",) if self._has_kernel() else ("lazy_embeddings", "fused")
        for option in refused:
            if getattr(inner, option, None) is True:
                raise ValueError(f"QuantizedState does not go with {option}=True here. Received: optimizer={optimizer!r}")

    def _has_kernel(self) -> bool:
        """Whether there is a compiled update that reads these codes."""
        size = self.block_size or KINDS[self.kind].block_size
        method = getattr(self.inner_optimizer, "kernel", "")
        return kernels.takes_codes(method, self.kind, size)

    # State

    def build(self, variables: Any) -> None:
        if self.built or not variables:
            return
        if backends.replicas() > 1:
            raise ValueError(f"QuantizedState works on one replica. Received: {backends.replicas()} replicas")
        included = path_rules.included("exclude_from_quantization", self.exclude_from_quantization, variables)
        # By key: several variables may have one path, as those have that were given no name.
        self._coded = {
            keras_private.variable_key(self, v)
            for v, is_in in zip(variables, included, strict=True)
            if is_in and self._is_fit(v)
        }
        inner = self.inner_optimizer
        is_ours = isinstance(inner, optimizers.Optimizer)
        maker = "add_state" if is_ours else "add_variable_from_reference"
        self.__dict__["_coded_moments"] = {}  # of each variable; not an attribute, which Keras would track
        vars(inner)[maker] = self._moments_through(getattr(inner, maker))
        super().build(variables)
        del vars(inner)[maker]
        # Keras takes them for its variables; their parts are.
        keras_private.remove_optimizer_variables(inner, [it for it in self._all_moments() if isinstance(it, keras.Variable)])
        if not is_ours:  # ours read and write each moment once, and use it as they computed it
            keras_private.replace_update_step(inner, self._update_step, self._update_one_by_one)

    def _is_fit(self, variable: Any) -> bool:
        dtype = keras.backend.standardize_dtype(variable.dtype)
        return math.prod(variable.shape) >= self.min_size and dtype in ("float32", "bfloat16", "float16")

    def _moments_through(self, make: Any) -> Any:
        """`make`, except that moments to be quantized never exist in float32."""

        def make_or_code(variable: Any, name: Any = None, *args: Any, **options: Any) -> Any:
            if (
                name not in self._signs
                or keras_private.variable_key(self, variable) not in self._coded
                or options.get("shape") is not None
            ):
                return make(variable, name, *args, **options)
            return self._make_moment(variable, name)

        return make_or_code

    def _make_moment(self, variable: Any, name: str) -> Any:
        coder = KINDS[self.kind](self.block_size or KINDS[self.kind].block_size, self._signs[name])
        parts = {
            part: self.inner_optimizer.add_variable(
                shape=shape,
                dtype=dtype,
                layout=keras_private.layout(variable) if part == "codes" else None,
                name=f"{path_rules.path(variable).replace('/', '_').replace(':', '_')}_{name}_{part}",
            )
            for part, (shape, dtype) in coder.parts(tuple(variable.shape)).items()
        }
        moment = CodedMoment(coder, parts, tuple(variable.shape))
        self._coded_moments.setdefault(keras_private.variable_key(self, variable), []).append(moment)
        return moment

    def _all_moments(self) -> Any:
        return [moment for each in self._coded_moments.values() for moment in each]

    # The update

    def _update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """That of an optimizer of Keras, which sets moments and goes on with what it reads from them."""
        with contextlib.ExitStack() as stack:
            for moment in self._coded_moments.get(keras_private.variable_key(self, variable), ()):
                stack.enter_context(moment.in_float32())
            type(self.inner_optimizer).update_step(self.inner_optimizer, gradient, variable, learning_rate)

    def _update_one_by_one(self, grads: Any, variables: Any, learning_rate: Any) -> None:
        """In place of the updates of Keras on PyTorch, which change the tensors of all variables together."""
        for gradient, variable in zip(grads, variables, strict=True):
            self._update_step(gradient, variable, learning_rate)

    def before_update(self, steps: Any) -> Any:
        """The state, if the inner optimizer may leave this update out: encoding what was decoded need not give it back."""
        if getattr(self.inner_optimizer, "nonfinite", "propagate") == "propagate":
            return None
        return [ops.copy(ops.convert_to_tensor(v)) for v in (self.inner_optimizer.skipped_updates, *self._parts())]

    def after_update(self, steps: Any, before: Any) -> None:
        if before is None:
            return
        skipped = ops.not_equal(self.inner_optimizer.skipped_updates, before[0])
        for part, old in zip(self._parts(), before[1:], strict=True):
            part.assign(ops.where(skipped, old, ops.convert_to_tensor(part)))

    def load_own_variables(self, store: Any) -> None:
        for index, variable in enumerate(self.variables):
            shape = tuple(store[str(index)].shape) if str(index) in store.keys() else None  # noqa: SIM118
            if shape is not None and shape != tuple(variable.shape):
                raise ValueError(
                    "The file has state of another `kind`, `block_size` or `min_size`. Received: "
                    f"kind={self.kind!r}, block_size={self.block_size}, min_size={self.min_size}, where {variable.path} has "
                    f"shape={tuple(variable.shape)}, and in the file shape={shape}"
                )
        super().load_own_variables(store)

    def _parts(self) -> Any:
        return [part for moment in self._all_moments() for part in moment.parts.values()]

    def get_config(self) -> dict[str, Any]:
        names = ("kind", "block_size", "min_size", "exclude_from_quantization")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
