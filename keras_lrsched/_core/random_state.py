"""The state of the global generators of random numbers."""

import random
from typing import Any

import keras
import numpy as np

from keras_lrsched._core import keras_private


def random_state() -> dict:
    """The state of the global generators: of Python, NumPy, PyTorch, TensorFlow's eager operations, Keras without a seed."""
    version, numbers, gauss = random.getstate()
    generator, eager = keras_private.existing_global_seed_generator(), keras_private.eager_random_generator()
    return {
        "python": [version, list(numbers), gauss],
        "tensorflow": None if eager is None else eager.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "keras": None if generator is None else np.array(generator.state.numpy()),
        "torch": torch_random_state(),
    }


def restore_random_state(state: Any) -> None:
    version, numbers, gauss = state["python"]
    if state["keras"] is None:
        keras_private.forget_global_seed_generator()
    else:
        keras_private.global_seed_generator().state.assign(state["keras"])  # making it may draw from Python's numbers
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state["numpy"])
    eager = keras_private.eager_random_generator()
    if eager is not None and state["tensorflow"] is not None:
        eager.setstate(state["tensorflow"])
    restore_torch_random_state(state["torch"])


def torch_random_state() -> list:
    """The states of PyTorch's generators, of the CPU and of all GPUs, from which dropout without a seed draws."""
    if keras.backend.backend() != "torch":
        return []
    import torch

    return [torch.get_rng_state().numpy(), *(state.numpy() for state in torch.cuda.get_rng_state_all())]


def restore_torch_random_state(states: Any) -> None:
    if keras.backend.backend() == "torch" and states:
        import torch

        cpu, *gpus = (torch.from_numpy(np.array(state)) for state in states)
        torch.set_rng_state(cpu)
        torch.cuda.set_rng_state_all(gpus)
