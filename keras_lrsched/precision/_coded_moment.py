"""A moment of an optimizer that is kept in 8 bits, and is to the optimizer a variable in float32."""

import contextlib
import math
from typing import Any

import keras
from keras import ops

from keras_lrsched import kernels
from keras_lrsched.precision import _dynamic_map, _range_expansion

# The optimizers of Keras on TensorFlow unwrap what is a `keras.Variable`, and assign to the `tf.Variable` in it.
Base: Any = object if keras.backend.backend() == "tensorflow" else keras.Variable


class Blockwise8:
    """Codes of the dynamic map, and a float32 scale for each block."""

    kind = "blockwise8"
    block_size = 256

    def __init__(self, block_size, signed):
        self.block_size, self.signed = block_size, signed

    def parts(self, shape):
        """Arrays that store a moment of this shape: shapes and dtypes by name. Zeros stand for a moment of zeros."""
        return {"codes": (shape, "uint8"), "absmax": ((_blocks(shape, self.block_size),), "float32")}

    def encode(self, x):
        codes, absmax = _dynamic_map.quantize_blockwise(x, self.signed, self.block_size)
        return {"codes": codes, "absmax": absmax}

    def decode(self, codes, absmax):
        return _dynamic_map.dequantize_blockwise(codes, absmax, self.signed, self.block_size)


class Coat:
    """Codes of FP8 E4M3 after dynamic range expansion. Its three numbers take five bytes for each group, not twelve."""

    kind = "coat"
    block_size = 128

    def __init__(self, block_size, signed):
        self.block_size = block_size

    def parts(self, shape):
        groups = (_blocks(shape, self.block_size),)
        return {
            "codes": (shape, "uint8"),
            "scale": (groups, "bfloat16"),
            "center": (groups, "bfloat16"),
            "k": (groups, "uint8"),
        }

    def encode(self, x):
        codes, expansion = _range_expansion.quantize_expanded(x, self.block_size, compact=True)
        sixteenths = ops.cast(expansion.k * _range_expansion.STEPS, "uint8")
        return {"codes": codes, "scale": expansion.scale, "center": expansion.center, "k": sixteenths}

    def decode(self, codes, scale, center, k):
        k = ops.maximum(ops.cast(k, "float32"), 1.0) / _range_expansion.STEPS
        expansion = _range_expansion.Expansion(ops.cast(scale, "float32"), k, ops.cast(center, "float32"))
        return _range_expansion.dequantize_expanded(codes, expansion, self.block_size)


KINDS: dict[str, type[Any]] = {coder.kind: coder for coder in (Blockwise8, Coat)}


class CodedMoment(Base):
    """A stand-in for a float32 variable of an optimizer: it is decoded when it is read, and encoded when it is set.

    Args:
        coder: A `Blockwise8` or `Coat`.
        parts: The variables that hold it, by name.
        shape: Its shape.
    """

    dtype = "float32"
    shape: Any = None

    def __init__(self, coder, parts, shape):
        self.coder, self.parts, self.shape = coder, parts, shape
        self.code = kernels.state_codes()[coder.kind], coder.block_size
        self._float32 = None

    @contextlib.contextmanager
    def in_float32(self):
        """Within, it is decoded once, and what is set is what is read; in the end it is encoded."""
        self._float32 = self.value
        try:
            yield
            value = self._float32
        finally:
            self._float32 = None
        self.assign(value)

    @property
    def value(self):
        if self._float32 is not None:
            return self._float32
        return self.coder.decode(**{name: ops.convert_to_tensor(part) for name, part in self.parts.items()})

    def assign(self, value):
        if self._float32 is not None:
            self._float32 = ops.cast(value, "float32")
            return
        for name, code in self.coder.encode(ops.cast(value, "float32")).items():
            self.parts[name].assign(ops.cast(code, self.parts[name].dtype))

    def assign_add(self, value):
        self.assign(self.value + value)

    def assign_sub(self, value):
        self.assign(self.value - value)

    def __tf_tensor__(self, dtype=None, name=None):
        return self.value

    def __repr__(self):
        return f"<CodedMoment shape={self.shape}, {type(self.coder).__name__}>"


def _blocks(shape, size):
    return -(-math.prod(shape) // size)
