"""Orthogonalization of matrices that PyTorch holds on CPU, by their addresses."""

from collections.abc import Sequence

import torch

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels import _c_interface as core


def unavailable(matrices: Sequence[Tensor]) -> str | None:
    """Reason why these tensors have no kernel here, or `None`."""
    devices = {each.device.type for each in matrices} - {"cpu"}
    return f"PyTorch tensors on {', '.join(sorted(devices))} have no kernel." if devices else None


def load(place: str) -> None:
    """Build and load what is needed."""
    del place
    core.load("orthogonalize")


@torch.no_grad()
def orthogonalize(matrices: Sequence[Tensor], coefficients: Tensor, bounds: Tensor) -> list[Tensor]:
    """As `keras_lrsched.kernels.orthogonalize.orthogonalize`."""
    given = [each.detach().contiguous() for each in matrices]
    results = [torch.empty_like(each) for each in given]
    settings, (safety, epsilon) = coefficients.detach().contiguous(), bounds.tolist()
    rows = [
        core.Matrix(start.data_ptr() + 4 * begin, end.data_ptr() + 4 * begin, *start.shape[-2:])
        for start, end in zip(given, results, strict=True)
        for begin in range(0, start.numel(), max(1, start.shape[-2] * start.shape[-1]))
    ]
    threads = torch.get_num_threads()
    listed = (core.Matrix * len(rows))(*rows)
    job = core.Orthogonalization(listed, len(rows), settings.data_ptr(), len(settings) // 3, safety, epsilon, threads)
    scratch = torch.empty((core.orthogonalization_scratch(job),), dtype=torch.uint8)
    core.orthogonalize(job, scratch.data_ptr(), threads)
    return results
