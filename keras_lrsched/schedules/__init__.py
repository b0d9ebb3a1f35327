"""Schedules: a step goes in, a value comes out. Pure, stateless, closed form.

Each is a `keras.optimizers.schedules.LearningRateSchedule`, to be passed to an optimizer as its `learning_rate`.
"""

from keras_lrsched.schedules import catalog, profiles
from keras_lrsched.schedules.base import Schedule
from keras_lrsched.schedules.batch_size_warmup import BatchSizeWarmup
from keras_lrsched.schedules.certified_epsilon import CertifiedEpsilon
from keras_lrsched.schedules.chain import Chain
from keras_lrsched.schedules.constant import Constant
from keras_lrsched.schedules.continued_pretraining import ContinuedPretraining
from keras_lrsched.schedules.cyclical_learning_rate import CyclicalLearningRate
from keras_lrsched.schedules.cyclical_policies import (
    ExponentialCyclicalLearningRate,
    Triangular2CyclicalLearningRate,
    TriangularCyclicalLearningRate,
)
from keras_lrsched.schedules.distribution_shift import DistributionShift
from keras_lrsched.schedules.efficient_train_stages import EfficientTrainStages
from keras_lrsched.schedules.infinite_learning_rate import InfiniteLearningRate
from keras_lrsched.schedules.inverse_sqrt_decay import InverseSqrtDecay
from keras_lrsched.schedules.learning_rate_rewinding import LearningRateRewinding
from keras_lrsched.schedules.linear_decay import LinearDecay
from keras_lrsched.schedules.masking_rate import MaskingRate
from keras_lrsched.schedules.minicpm_decay import MiniCPMDecay
from keras_lrsched.schedules.moderate_decay import ModerateDecay
from keras_lrsched.schedules.multigrid_shapes import MultigridShapes
from keras_lrsched.schedules.multiplicative_cyclic import MultiplicativeCyclic
from keras_lrsched.schedules.noam_decay import NoamDecay
from keras_lrsched.schedules.one_cycle import OneCycle, OneCycleMomentum
from keras_lrsched.schedules.per_update import PerUpdate
from keras_lrsched.schedules.piecewise_constant import PiecewiseConstant
from keras_lrsched.schedules.power_decay import PowerDecay
from keras_lrsched.schedules.product import Product
from keras_lrsched.schedules.profile_decay import ProfileDecay
from keras_lrsched.schedules.refined_schedule import RefinedSchedule
from keras_lrsched.schedules.rewarm_redecay import RewarmRedecay
from keras_lrsched.schedules.rex_decay import REXDecay
from keras_lrsched.schedules.scale import Scale
from keras_lrsched.schedules.slow_start_fast_decay import SlowStartFastDecay
from keras_lrsched.schedules.sparsity_ramp import SparsityRamp
from keras_lrsched.schedules.step_decay_with_warmup import StepDecayWithWarmup
from keras_lrsched.schedules.synchronization_period import SynchronizationPeriod
from keras_lrsched.schedules.tabulated import Tabulated
from keras_lrsched.schedules.unified_budget_aware_decay import UnifiedBudgetAwareDecay
from keras_lrsched.schedules.warmup import Warmup
from keras_lrsched.schedules.warmup_stable_decay import WarmupStableDecay
from keras_lrsched.schedules.warmup_stable_decay_simplified import WarmupStableDecaySimplified

__all__ = [
    "BatchSizeWarmup",
    "CertifiedEpsilon",
    "Chain",
    "Constant",
    "ContinuedPretraining",
    "CyclicalLearningRate",
    "DistributionShift",
    "EfficientTrainStages",
    "ExponentialCyclicalLearningRate",
    "InfiniteLearningRate",
    "InverseSqrtDecay",
    "LearningRateRewinding",
    "LinearDecay",
    "MaskingRate",
    "MiniCPMDecay",
    "ModerateDecay",
    "MultigridShapes",
    "MultiplicativeCyclic",
    "NoamDecay",
    "OneCycle",
    "OneCycleMomentum",
    "PerUpdate",
    "PiecewiseConstant",
    "PowerDecay",
    "Product",
    "ProfileDecay",
    "REXDecay",
    "RefinedSchedule",
    "RewarmRedecay",
    "Scale",
    "Schedule",
    "SlowStartFastDecay",
    "SparsityRamp",
    "StepDecayWithWarmup",
    "SynchronizationPeriod",
    "Tabulated",
    "Triangular2CyclicalLearningRate",
    "TriangularCyclicalLearningRate",
    "UnifiedBudgetAwareDecay",
    "Warmup",
    "WarmupStableDecay",
    "WarmupStableDecaySimplified",
    "catalog",
    "profiles",
]
