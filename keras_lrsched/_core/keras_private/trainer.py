"""Training: `compile` and the step of `fit`."""

from collections.abc import Callable, Sequence
from typing import Any

import keras


def trains_by_own_step(model: keras.Model) -> bool:
    """Return `True` if the class of a model overrides `train_step`.

    Relies on the trainer of each backend being a base class of `keras.Model` that defines `train_step`. Seen in Keras 3.10
    to 3.15.
    """
    return type(model).train_step is not keras.Model.train_step


def is_compiled_part_built(model: keras.Model) -> bool:
    """Return `True` if losses and metrics given to `compile` have their variables.

    Relies on `_compile_loss` and `_compile_metrics` of the trainer. Seen in Keras 3.10 to 3.15.
    """
    parts = (model._compile_loss, model._compile_metrics)
    return all(part is None or part.built for part in parts)


def build_symbolically(model: keras.Model, batch: Any) -> None:
    """Create all variables of a model, its metrics and its optimizer from the shapes of a batch.

    Relies on `Trainer._symbolic_build(data_batch=...)`, which looks at shapes and dtypes only. Seen in Keras 3.10 to 3.15.
    """
    model._symbolic_build(data_batch=batch)


def compiled_loop(model: keras.Model) -> Any:
    """The `tf.function` in a model's `train_function` that takes an iterator; `None` if there is none.

    Relies on `train_function` being a Python function that has it in its closure (Keras 3.11 to 3.15), or being it.
    """
    function = model.train_function
    candidates = [function, *(cell.cell_contents for cell in getattr(function, "__closure__", None) or ())]
    return next((it for it in candidates if hasattr(it, "get_concrete_function")), None)


def state_between_steps(model: keras.Model, kind: str) -> Any:
    """Return the state after the last step of a running `fit` on JAX; `None` while the variables of the model hold it.

    Relies on `_jax_state_synced` and `_jax_state` of JAX' trainer. Seen in Keras 3.10 to 3.15.

    Args:
        model: A model.
        kind: `"trainable_variables"`, `"non_trainable_variables"`, `"optimizer_variables"` or `"metrics_variables"`: the
            values are in the order of these variables.
    """
    return None if getattr(model, "_jax_state_synced", True) else model._jax_state[kind]


def compile_arguments(model: keras.Model) -> dict:
    """The arguments of `compile`, by name. Relies on `Trainer._compile_config.config`. Seen in Keras 3.10 to 3.15."""
    config = getattr(model, "_compile_config", None)
    return {} if config is None else dict(config.config)


def set_initial_epoch(model: keras.Model, epoch: int | None) -> None:
    """Let the running `fit` begin with an epoch; `None` for what it was given.

    Relies on `Trainer._initial_epoch`, which `BackupAndRestore` sets. Seen in Keras 3.10 to 3.15.
    """
    model._initial_epoch = epoch


def graphs_of_step(model: keras.Model) -> list:
    """The TensorFlow graphs of the compiled training step, nested functions included; none for other backends.

    Relies on `compiled_loop` and on `PolymorphicFunction._list_all_concrete_functions`. Seen in TensorFlow 2.18 to 2.21.
    """
    loop = compiled_loop(model)
    if not hasattr(loop, "_list_all_concrete_functions"):
        return []
    return [function.graph for function in loop._list_all_concrete_functions()]


def loss_tracker(model: keras.Model) -> Any:
    """The metric of a compiled model that is logged as `loss`. Relies on `Trainer._loss_tracker`. Keras 3.10 to 3.15."""
    return model._loss_tracker


def update_metrics(
    model: keras.Model, metrics_variables: Sequence, loss: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any
) -> tuple[dict, list]:
    """Logs and values of the metrics after a batch, from their values before, on JAX.

    Relies on `JAXTrainer._update_metrics_variables`. Seen in Keras 3.10 to 3.15.
    """
    return model._update_metrics_variables(metrics_variables, loss, x, y, y_pred, sample_weight)


BUILDING = ("_symbolic_build", "_maybe_symbolic_build")
"""Names of the functions in which Keras takes a batch only to build a model (JAX, PyTorch, `tf.distribute`)."""

PROBING = "_get_dataset_info"
"""The name of the function in which the data adapter for Grain reads the first batches to learn their shapes."""

EXPORTERS = (
    "keras.src.export.",
    "tensorflow.python.saved_model.save",
    "tensorflow.lite.python.",
    "tf2onnx.",
    "jax2onnx.",
    "jax._src.export.",
    "torch.export.",
    "torch.onnx.",
)
"""Prefixes of the names of modules that trace a model in order to export it."""


def replace_building(model: keras.Model, build: Callable) -> None:
    """Let `fit` and `evaluate` build a model by a function of the arguments `iterator` and `data_batch`.

    Relies on both calling `Trainer._maybe_symbolic_build`. Seen in Keras 3.10 to 3.15.
    """

    # It is found in the stack by this name, which is in `BUILDING`.
    def _maybe_symbolic_build(iterator: Any = None, data_batch: Any = None) -> None:
        build(iterator, data_batch)

    vars(model)["_maybe_symbolic_build"] = _maybe_symbolic_build
