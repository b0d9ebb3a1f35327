"""The running `fit`: what it consists of, and what is changed in it.

No other module reads frames, patches a training step or changes the class of an object. `frames` finds the callbacks and
the data, `building` creates variables and traces before the first batch, `step_hooks` patches the training step, `watches`
counts samples and resets, `traces` lets compiled functions be traced again, `patches` are for single calls.
"""

from keras_lrsched._core.training_loop.building import (
    build,
    trace,
)
from keras_lrsched._core.training_loop.frames import (
    callback_list,
    callbacks_of_fit,
    data_adapter,
    dataset,
    epoch_iterator,
    initial_epoch,
    is_building,
    is_exporting,
    is_looking_ahead,
    is_running,
    is_validation_of_fit,
    phase,
    place_first,
    place_last,
    probing_adapter,
    waiting_epoch_iterator,
)
from keras_lrsched._core.training_loop.optimizers import (
    inner_optimizer,
    optimizer_value,
    optimizers_of,
    other_optimizers,
)
from keras_lrsched._core.training_loop.patches import (
    as_class,
    batch_as_given,
    set_class,
)
