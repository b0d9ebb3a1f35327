"""Every private name of Keras and TensorFlow that the package relies on, one function each.

Each docstring names what is relied on. `tests/core/test_keras_private.py` has a test for each.
"""

import keras
from keras.src.backend.common import global_state
from keras.src.random import seed_generator


def global_seed_generator():
    """The `SeedGenerator` behind `keras.random` calls without a seed, which is made if there is none.

    Relies on `keras.src.random.seed_generator.global_seed_generator`. Seen in Keras 3.10 to 3.15.
    """
    return seed_generator.global_seed_generator()


def existing_global_seed_generator():
    """The same; `None` if nothing has drawn from it yet.

    Relies on `keras.src.backend.common.global_state` and `seed_generator.GLOBAL_SEED_GENERATOR`. Seen in Keras 3.10 to 3.15.
    """
    return global_state.get_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR)


def forget_global_seed_generator():
    """Lets the next draw make a new generator. Relies on the same names as `existing_global_seed_generator`."""
    global_state.set_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR, None)


def trains_by_own_step(model):
    """Whether the class of a model overrides `train_step`.

    Relies on the trainer of each backend being a base class of `keras.Model` that defines `train_step`. Seen in Keras 3.10 to
    3.15.
    """
    return type(model).train_step is not keras.Model.train_step


def layers_of(model):
    """All layers of a model at any depth, itself first. Relies on `Layer._flatten_layers`. Seen in Keras 3.10 to 3.15."""
    return list(model._flatten_layers())


def is_compiled_part_built(model):
    """Whether losses and metrics given to `compile` have their variables.

    Relies on `_compile_loss` and `_compile_metrics` of the trainer. Seen in Keras 3.10 to 3.15.
    """
    parts = (model._compile_loss, model._compile_metrics)
    return all(part is None or part.built for part in parts)


def build_symbolically(model, batch):
    """Create all variables of a model, its metrics and its optimizer from the shapes of a batch.

    Relies on `Trainer._symbolic_build(data_batch=...)`, which looks at shapes and dtypes only. Seen in Keras 3.10 to 3.15.
    """
    model._symbolic_build(data_batch=batch)


def element_spec(iterator):
    """TensorFlow's specification of the batches of an `EpochIterator`.

    Relies on `TFEpochIterator._distributed_dataset`. Seen in Keras 3.10 to 3.15.
    """
    return iterator._distributed_dataset.element_spec


def compiled_loop(model):
    """The `tf.function` in a model's `train_function` that takes an iterator; `None` if there is none.

    Relies on `train_function` being a Python function that has it in its closure (Keras 3.11 to 3.15), or being it.
    """
    function = model.train_function
    candidates = [function, *(cell.cell_contents for cell in getattr(function, "__closure__", None) or ())]
    return next((it for it in candidates if hasattr(it, "get_concrete_function")), None)
