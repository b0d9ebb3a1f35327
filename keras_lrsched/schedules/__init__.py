"""Schedules: a step goes in, a value comes out. Pure, stateless, closed form.

Each is a `keras.optimizers.schedules.LearningRateSchedule`, to be passed to an optimizer as its `learning_rate`.

    schedules.get("rex:a=0.1:b=0.9", peak_learning_rate=1e-3, total_steps=10_000, warmup_steps=500)

builds one by its name; `schedules.names()` lists the names. To write a schedule, derive from `PhasedSchedule`, whose
segments follow a `Profile`, or from `Schedule`.
"""

from keras_lrsched._core import registry
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules._lookup import get, names
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.profiles import Profile
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment

globals().update(registry.import_methods(__name__))
__all__ = registry.public_names(globals(), modules=("profiles",))
