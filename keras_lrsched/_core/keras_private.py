"""Every private name of Keras and TensorFlow that the package relies on, one function each.

Each docstring names what is relied on. `tests/core/test_keras_private.py` has a test for each.
"""

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
