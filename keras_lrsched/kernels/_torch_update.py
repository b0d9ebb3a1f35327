"""The update of PyTorch tensors on CPU, by their addresses."""

from collections.abc import Sequence

import torch

from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.kernels import _c_interface as core

DTYPES = {torch.float32: core.FLOAT32, torch.bfloat16: core.BFLOAT16}


def unavailable(variables: Sequence[Variable]) -> str | None:
    """Reason why these variables cannot be updated here, or `None`."""
    values = [variable.value for variable in variables]
    devices = {value.device.type for value in values} - {"cpu"}
    if devices:
        return f"PyTorch tensors on {', '.join(sorted(devices))} have no kernel."
    views = [variable.path for variable, value in zip(variables, values, strict=True) if not value.is_contiguous()]
    return f"Kernels need contiguous tensors, which these are not: {', '.join(views)}." if views else None


def load(place: str) -> None:
    """Build and load what is needed."""
    del place
    core.load("update")


@torch.no_grad()
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
    kernels = core.load("update")
    gradients = [gradient.detach().contiguous() for gradient in gradients]
    tensors = []
    for i, (variable, own, gradient, row) in enumerate(zip(variables, slots, gradients, rates.tolist(), strict=True)):
        w, states = variable.value, [slot.value for slot in own]
        if gradient.shape != w.shape:
            raise ValueError(f"A variable of shape {tuple(w.shape)} has a gradient of shape {tuple(gradient.shape)}.")
        if {tensor.device.type for tensor in (w, gradient, *states)} != {"cpu"}:  # their addresses would be of no use
            raise ValueError(f"The variable {variable.path}, its gradient and its state must be on one device, the CPU.")
        if not all(state.is_contiguous() for state in states):
            raise ValueError(f"The state of the variable {variable.path} is not contiguous.")
        slots = [each.data_ptr() for each in states]
        parts: list = []
        code, code_block = 0, 0
        own_blocks: Sequence[int] = (1, 1)
        if kernels.klr_in_blocks(kernels.klr_find_method(method.encode())):
            own_blocks = blocks[2 * i : 2 * i + 2]
        elif blocks:
            code, code_block = blocks
            each = kernels.klr_parts(code)
            slots, parts = [], [tuple(slots[first : first + each]) for first in range(0, len(slots), each)]
        dtypes = DTYPES[w.dtype], DTYPES[gradient.dtype]
        tensors.append(
            core.Tensor(
                *(w.data_ptr(), gradient.data_ptr(), tuple(slots), w.numel(), *dtypes, row[0], row[1], int(row[2]), i),
                *(*own_blocks, tuple(parts), code_block, code),
            )
        )
    core.update(method, tensors, parameters.tolist(), seed.tolist(), stochastic_rounding, torch.get_num_threads())
