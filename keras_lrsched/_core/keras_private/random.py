"""Generators of random numbers."""

import sys
from typing import Any

from keras.src.backend.common import global_state
from keras.src.random import seed_generator
from keras.src.utils import rng_utils


def global_seed_generator() -> Any:
    """The `SeedGenerator` behind `keras.random` calls without a seed, which is made if there is none.

    Relies on `keras.src.random.seed_generator.global_seed_generator`. Seen in Keras 3.10 to 3.15.
    """
    return seed_generator.global_seed_generator()


def existing_global_seed_generator() -> Any:
    """The global seed generator; `None` if nothing has drawn from it yet.

    Relies on `keras.src.backend.common.global_state` and its attribute "global_seed_generator". Seen in Keras 3.10 to 3.15.
    """
    return global_state.get_global_attribute("global_seed_generator")


def forget_global_seed_generator() -> None:
    """Let the next draw make a new generator. Relies on the same names as `existing_global_seed_generator`."""
    global_state.set_global_attribute("global_seed_generator", None)


def random_seed() -> int | None:
    """The last argument of `keras.utils.set_random_seed`, or `None`.

    Relies on `keras.src.utils.rng_utils.get_random_seed`. Seen in Keras 3.10 to 3.15.
    """
    return rng_utils.get_random_seed()


def eager_random_generator() -> Any:
    """The `random.Random` that TensorFlow draws the seeds of eager operations from; `None` without TensorFlow or a seed.

    Relies on `tensorflow.python.eager.context.context()._rng`, which `tf.random.set_seed` makes. TensorFlow 2.18 to 2.21.
    """
    context = sys.modules.get("tensorflow.python.eager.context")
    return None if context is None else getattr(context.context(), "_rng", None)
