"""GB/s of the compiled quantizers under JAX, beside a copy of the same memory.

Bytes are those that must be read and written: formats with a number for the tensor read it twice.
"""

import argparse

import jax
import numpy as np
from speed import copy, seconds

from keras_lrsched.precision import QuantizedTensor, dequantize, fake_quantize, get_format, quantize

FORMATS = ("FP8_E4M3", "FP8_E4M3_ROW", "FP8_E4M3_BLOCK128", "FP8_E4M3_BLOCK128X128", "MXFP8_E4M3", "MXFP6_E2M3", "MXFP4")
FORMATS = (*FORMATS, "NVFP4", "NVFP4_2D", "NVFP4_FOUR_OVER_SIX", "INT8_CHANNEL", "INT8_GROUP128")


def parts(q):
    return q.codes, q.scales, q.tensor_scale


def measure(name, x, axis, options):
    """GB/s of `quantize`, `fake_quantize` and `dequantize`."""
    format = get_format(name)
    reads = 2 if format.block is None or format.scale == "nvfp4" else 1
    to_codes = jax.jit(lambda x: parts(quantize(x, format, axis=axis, **options)))
    to_fake = jax.jit(lambda x: fake_quantize(x, format, axis=axis, **options))
    from_codes = jax.jit(lambda c, s, t: dequantize(QuantizedTensor(c, s, format, x.shape, axis, t)))
    stored = to_codes(x)
    small = stored[0].nbytes + stored[1].nbytes
    speeds = (
        (reads * x.nbytes + small) / seconds(lambda: to_codes(x), jax.block_until_ready),
        (reads + 1) * x.nbytes / seconds(lambda: to_fake(x), jax.block_until_ready),
        (small + 4 * x.size) / seconds(lambda: from_codes(*stored), jax.block_until_ready),
    )
    return [speed / 1e9 for speed in speeds]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=64)
    size = parser.parse_args().millions * 2**20
    limit = copy(size) / 1e9
    normal = np.random.default_rng(0).standard_normal((size // 4096, 4096), "float32")
    print(f"{jax.devices()[0].device_kind}, {size / 1e6:.0f}M numbers; a copy: {limit:.0f} GB/s")
    print(f"{'GB/s':34}{'dtype':>10}{'axis':>6}{'quantize':>10}{'fake':>8}{'back':>8}")
    for name in FORMATS:
        for dtype, axis, options in (
            ("float32", -1, {}),
            ("bfloat16", -1, {}),
            ("float32", 0, {}),
            ("float32", -1, {"rounding": "stochastic", "seed": 1}),
        ):
            speeds = measure(name, jax.numpy.asarray(normal, dtype), axis, options)
            label = f"{name}{' stochastic' if options else ''}"
            row = "".join(f"{speed:{width}.0f}" for speed, width in zip(speeds, (10, 8, 8), strict=True))
            print(f"{label:34}{dtype:>10}{axis:>6}{row}{100 * speeds[0] / limit:6.0f} % of the copy", flush=True)


if __name__ == "__main__":
    main()
