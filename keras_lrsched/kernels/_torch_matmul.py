"""Products of int8 matrices that PyTorch holds on CPU, by their addresses."""

from collections.abc import Sequence

import torch

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels import _c_interface as core


def unavailable(tensors: Sequence[Tensor], output: str) -> str | None:
    """Reason why these tensors have no kernel here, or `None`."""
    del output
    devices = {tensor.device.type for tensor in tensors} - {"cpu"}
    return f"PyTorch tensors on {', '.join(sorted(devices))} have no kernel." if devices else None


def load(place: str) -> None:
    """Build and load what is needed."""
    del place
    core.load("matmul")


@torch.no_grad()
def multiply(
    a: Tensor, b: Tensor, a_scales: Tensor, b_scales: Tensor, transpose_a: bool, transpose_b: bool, output: str
) -> Tensor:
    """As `keras_lrsched.kernels.matmul.multiply`."""
    tensors = [each.detach().contiguous() for each in (a, b, a_scales, b_scales)]
    m, k = a.shape[::-1] if transpose_a else a.shape
    n = b.shape[0 if transpose_b else 1]
    c = torch.empty((m, n), dtype=torch.int32 if output == "int32" else torch.float32)
    a, b, a_scales, b_scales = (each.data_ptr() for each in tensors)
    sizes = tensors[2].numel(), tensors[3].numel()
    number = core.OUTPUTS.index(output)
    product = core.Product(a, b, c.data_ptr(), a_scales, b_scales, m, n, k, *sizes, transpose_a, transpose_b, number, -1)
    core.check_product(product)
    scratch = torch.empty((core.scratch_size(product),), dtype=torch.uint8)
    core.multiply(product, scratch.data_ptr(), torch.get_num_threads())
    return c
