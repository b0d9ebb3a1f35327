"""Quantization of PyTorch tensors on CPU, by their addresses."""

from collections.abc import Sequence
from typing import Any

import torch

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels import _c_interface as core

DTYPES = {torch.float32: core.FLOAT32, torch.bfloat16: core.BFLOAT16}


def unavailable(tensors: Sequence[Tensor]) -> str | None:
    """Reason why these tensors have no kernel here, or `None`."""
    devices = {tensor.device.type for tensor in tensors} - {"cpu"}
    return f"PyTorch tensors on {', '.join(sorted(devices))} have no kernel." if devices else None


def load(place: str) -> None:
    """Build and load what is needed."""
    del place
    core.load("quantize")


def rotates() -> bool:
    """Whether kernels take Hadamard transforms."""
    return True


@torch.no_grad()
def quantize(x: Tensor, spec: Sequence[int], seed: Tensor, signs: Tensor, has_bytes: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As `keras_lrsched.kernels.quantize.quantize`, but with codes and scales as rows."""
    x, signs = x.detach().contiguous(), signs.detach().contiguous()
    quantizer = _quantizer(x, spec, seed, signs)
    sizes = core.stored_sizes(quantizer)
    codes = torch.empty((sizes.code_rows, sizes.code_bytes), dtype=torch.uint8)
    scales = torch.empty((sizes.scale_rows, sizes.scale_columns), dtype=torch.uint8 if has_bytes else torch.float32)
    tensor_scale = torch.ones((1,), dtype=torch.float32)
    addresses = x.data_ptr(), codes.data_ptr(), scales.data_ptr(), tensor_scale.data_ptr()
    core.quantize(quantizer, *addresses, torch.get_num_threads())
    return codes, scales, tensor_scale


@torch.no_grad()
def fake_quantize(x: Tensor, spec: Sequence[int], seed: Tensor, signs: Tensor) -> Tensor:
    """As `keras_lrsched.kernels.quantize.fake_quantize`."""
    x, signs = x.detach().contiguous(), signs.detach().contiguous()
    quantizer = _quantizer(x, spec, seed, signs)
    y = torch.empty_like(x)
    core.fake_quantize(quantizer, x.data_ptr(), y.data_ptr(), torch.get_num_threads())
    return y


@torch.no_grad()
def dequantize(codes: Tensor, scales: Tensor, tensor_scale: Tensor, shape: Sequence[Any], spec: Sequence[int]) -> Tensor:
    """As `keras_lrsched.kernels.quantize.dequantize`."""
    codes, scales = codes.contiguous(), scales.contiguous()
    outer, columns, inner = shape
    outer = outer if outer is not None else codes.shape[0] // inner
    quantizer = core.make_quantizer((outer, columns, inner), spec, core.FLOAT32)
    y = torch.empty((outer, columns, inner), dtype=torch.float32)
    addresses = codes.data_ptr(), scales.data_ptr(), tensor_scale.data_ptr(), y.data_ptr()
    core.dequantize(quantizer, *addresses, torch.get_num_threads())
    return y


def _quantizer(x: Tensor, spec: Sequence[int], seed: Tensor, signs: Tensor) -> core.Quantizer:
    """It holds the address of `signs`, which must live as long."""
    return core.make_quantizer(x.shape, spec, DTYPES[x.dtype], seed.tolist(), len(signs), signs.data_ptr())
