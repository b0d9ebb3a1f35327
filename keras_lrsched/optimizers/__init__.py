"""Optimizers: a gradient goes in, an update comes out.

Each is a `keras.optimizers.Optimizer` whose state and arithmetic are float32, to be passed to `model.compile`.
"""

from keras_lrsched._core.roles import Role, Roles, roles
from keras_lrsched.optimizers import catalog
from keras_lrsched.optimizers.adabound import AdaBound
from keras_lrsched.optimizers.adafactor import Adafactor
from keras_lrsched.optimizers.adalomo import AdaLomo
from keras_lrsched.optimizers.adam_atan2 import AdamAtan2
from keras_lrsched.optimizers.adam_mini import AdamMini
from keras_lrsched.optimizers.adamod import AdaMod
from keras_lrsched.optimizers.adamomentum import AdaMomentum
from keras_lrsched.optimizers.adamw import AdamW
from keras_lrsched.optimizers.apollo import Apollo
from keras_lrsched.optimizers.apollo_mini import ApolloMini
from keras_lrsched.optimizers.cocob import COCOB
from keras_lrsched.optimizers.dadapt_adam import DAdaptAdam
from keras_lrsched.optimizers.dadapt_lion import DAdaptLion
from keras_lrsched.optimizers.dadapt_sgd import DAdaptSGD
from keras_lrsched.optimizers.fira import Fira
from keras_lrsched.optimizers.galore import GaLore
from keras_lrsched.optimizers.lamb import Lamb
from keras_lrsched.optimizers.lars import Lars
from keras_lrsched.optimizers.layerwise_learning_rate import LayerwiseLearningRate
from keras_lrsched.optimizers.lion import Lion
from keras_lrsched.optimizers.local_updates import LocalUpdates
from keras_lrsched.optimizers.lookahead import Lookahead
from keras_lrsched.optimizers.momo import MoMo
from keras_lrsched.optimizers.momo_adam import MoMoAdam
from keras_lrsched.optimizers.muon import Muon
from keras_lrsched.optimizers.normuon import NorMuon
from keras_lrsched.optimizers.optimizer import Optimizer
from keras_lrsched.optimizers.prodigy import Prodigy
from keras_lrsched.optimizers.rectified_adam import RectifiedAdam
from keras_lrsched.optimizers.schedule_free_adamw import ScheduleFreeAdamW
from keras_lrsched.optimizers.schedule_free_radam import ScheduleFreeRAdam
from keras_lrsched.optimizers.schedule_free_sgd import ScheduleFreeSGD
from keras_lrsched.optimizers.sgd import SGD
from keras_lrsched.optimizers.sgd_sai import SGDSaI
from keras_lrsched.optimizers.sharpness_aware import SharpnessAware
from keras_lrsched.optimizers.sophia import Sophia
from keras_lrsched.optimizers.sophia_model import SophiaModel

__all__ = [
    "COCOB",
    "SGD",
    "AdaBound",
    "AdaLomo",
    "AdaMod",
    "AdaMomentum",
    "Adafactor",
    "AdamAtan2",
    "AdamMini",
    "AdamW",
    "Apollo",
    "ApolloMini",
    "DAdaptAdam",
    "DAdaptLion",
    "DAdaptSGD",
    "Fira",
    "GaLore",
    "Lamb",
    "Lars",
    "LayerwiseLearningRate",
    "Lion",
    "LocalUpdates",
    "Lookahead",
    "MoMo",
    "MoMoAdam",
    "Muon",
    "NorMuon",
    "Optimizer",
    "Prodigy",
    "RectifiedAdam",
    "Role",
    "Roles",
    "SGDSaI",
    "ScheduleFreeAdamW",
    "ScheduleFreeRAdam",
    "ScheduleFreeSGD",
    "SharpnessAware",
    "Sophia",
    "SophiaModel",
    "catalog",
    "roles",
]
