"""Schedules: a step goes in, a value comes out. Pure, stateless, closed form.

Each is a `keras.optimizers.schedules.LearningRateSchedule`, to be passed to an optimizer as its `learning_rate`.
"""

from keras_lrsched.schedules import catalog, profiles
from keras_lrsched.schedules.base import Schedule
from keras_lrsched.schedules.chain import Chain
from keras_lrsched.schedules.constant import Constant
from keras_lrsched.schedules.inverse_sqrt_decay import InverseSqrtDecay
from keras_lrsched.schedules.linear_decay import LinearDecay
from keras_lrsched.schedules.one_cycle import OneCycle, OneCycleMomentum
from keras_lrsched.schedules.per_update import PerUpdate
from keras_lrsched.schedules.profile_decay import ProfileDecay
from keras_lrsched.schedules.rex_decay import REXDecay
from keras_lrsched.schedules.scale import Scale
from keras_lrsched.schedules.tabulated import Tabulated
from keras_lrsched.schedules.unified_budget_aware_decay import UnifiedBudgetAwareDecay
from keras_lrsched.schedules.warmup import Warmup
from keras_lrsched.schedules.warmup_stable_decay import WarmupStableDecay

__all__ = [
    "Chain",
    "Constant",
    "InverseSqrtDecay",
    "LinearDecay",
    "OneCycle",
    "OneCycleMomentum",
    "PerUpdate",
    "ProfileDecay",
    "REXDecay",
    "Scale",
    "Schedule",
    "Tabulated",
    "UnifiedBudgetAwareDecay",
    "Warmup",
    "WarmupStableDecay",
    "catalog",
    "profiles",
]
