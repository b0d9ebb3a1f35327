"""The update in TensorFlow: one op on all resource variables, eagerly, in graphs, and in what XLA compiles."""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_lrsched._core.backends import raw_variable
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.kernels import _loading
from keras_lrsched.kernels._build import library, mode


def unavailable(variables: Sequence[Variable]) -> str | None:
    """Reason why these variables cannot be updated here, or `None`."""
    if tf.config.list_logical_devices("GPU"):
        if _loading.place() != "xla":
            return "TensorFlow variables on a GPU have a kernel with jit_compile only."
        if mode() != "1":
            return "The CUDA kernels have been compiled, but never run: KERAS_LRSCHED_FUSED=1 tries them."
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return "Variables that lie on several replicas have no kernel."
    return None


def load(place: str) -> None:
    """Build and load what is needed; where XLA compiles, its part, too, which takes longer."""
    _op()
    if place == "xla":
        _load_for_xla()


def update(
    method: str,
    variables: Sequence[Variable],
    slots: Sequence[Sequence[Variable]],
    gradients: Sequence[Tensor],
    rates: Tensor,
    parameters: Tensor,
    seed: Tensor,
    stochastic_rounding: bool,
    blocks: Sequence[int],
) -> None:
    """As `keras_lrsched.kernels.update`."""
    _op()(
        variables=[raw_variable(variable).handle for variable in variables],
        slots=[slot.value.handle for same in zip(*slots, strict=True) for slot in same],
        gradients=gradients,
        rates=rates,
        parameters=parameters,
        seed=seed,
        method=method,
        stochastic_rounding=stochastic_rounding,
        blocks=blocks,
    )


@functools.cache
def _op() -> Callable:
    return tf.load_op_library(str(library("tensorflow"))).keras_lrsched_update


@functools.cache
def _load_for_xla() -> None:
    tf.load_library(str(library("tensorflow_xla_cuda" if tf.config.list_logical_devices("GPU") else "tensorflow_xla")))
