"""Variables and traces of a step before its first batch, from the data of the running `fit`."""

from typing import Any

import keras

from keras_lrsched._core import keras_private
from keras_lrsched._core.training_loop.frames import epoch_iterator


def build(model: keras.Model) -> None:
    """Create the variables that the first training step would create: of the model, its metrics, losses and optimizers.

    To be called within `fit`, from `on_train_begin` on. The shapes come from the data of this `fit`; no batch is trained and
    none is taken from the data. On TensorFlow, a model with a `train_step` of its own is built by tracing that step, so that
    an optimizer has the variables that the step gives to it, and no others.

    Raises:
        ValueError: If there are variables to be made, but no running `fit` that has data.
    """
    layers_built = all(layer.built for layer in keras_private.layers_of(model))
    optimizer_built = model.optimizer is None or model.optimizer.built
    if layers_built and optimizer_built and keras_private.is_compiled_part_built(model):
        return
    own_step = keras_private.trains_by_own_step(model)
    if own_step and keras.backend.backend() != "tensorflow":
        return  # Keras builds all but the optimizer on JAX and PyTorch; there, the step is plain Python
    if layers_built and not own_step and not optimizer_built and keras_private.is_compiled_part_built(model):
        model.optimizer.build(model.trainable_variables)
        return
    iterator = epoch_iterator()
    if iterator is None:
        raise ValueError(f"Call the model on data first: it has no weights yet. Received: model={model.name!r}, not built")
    spec = keras_private.element_spec(iterator)
    if own_step:
        _trace(model, spec)
    else:
        keras_private.build_symbolically(model, spec)


def trace(model: keras.Model) -> None:
    """Trace the compiled training step of TensorFlow before its first batch, within `fit`; does nothing elsewhere."""
    iterator = epoch_iterator()
    if keras.backend.backend() == "tensorflow" and iterator is not None and not model.run_eagerly:
        _trace(model, keras_private.element_spec(iterator))


def _trace(model: keras.Model, spec: Any) -> None:
    """Trace the training step of TensorFlow for batches of a specification."""
    import tensorflow as tf

    loop = None if model.run_eagerly else keras_private.compiled_loop(model)
    if loop is not None:
        loop.get_concrete_function(tf.data.IteratorSpec(spec))  # the trace that `fit` will use
    else:
        tf.function(model.train_step, autograph=False).get_concrete_function(spec)
