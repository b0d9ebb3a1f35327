"""Callbacks: watch training, set values."""

from keras_lrsched.callbacks.adaptive_batch_size import AdaptiveBatchSize
from keras_lrsched.callbacks.autolrs import AutoLRS
from keras_lrsched.callbacks.batch_size_schedule import BatchSizeSchedule
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.callbacks.critical_batch_size import CriticalBatchSize
from keras_lrsched.callbacks.gradient_controller import GradientController
from keras_lrsched.callbacks.gradient_noise_scale import GradientNoiseScale
from keras_lrsched.callbacks.gradient_norm_recorder import GradientNormRecorder
from keras_lrsched.callbacks.hypergradient_learning_rate import HypergradientLearningRate
from keras_lrsched.callbacks.learning_rate_finder import LearningRateFinder
from keras_lrsched.callbacks.learning_rate_logger import LearningRateLogger
from keras_lrsched.callbacks.loss_recorder import LossRecorder
from keras_lrsched.callbacks.magnitude_pruning import MagnitudePruning
from keras_lrsched.callbacks.precision_schedule import PrecisionSchedule
from keras_lrsched.callbacks.schedule_free_evaluation import ScheduleFreeEvaluation
from keras_lrsched.callbacks.schedule_hyperparameter import ScheduleHyperparameter
from keras_lrsched.callbacks.snapshot import Snapshot
from keras_lrsched.callbacks.stability_monitor import StabilityMonitor
from keras_lrsched.callbacks.training_state import TrainingState
from keras_lrsched.callbacks.volsched import VolSched
from keras_lrsched.callbacks.weight_averaging import WeightAveraging

__all__ = [
    "AdaptiveBatchSize",
    "AutoLRS",
    "BatchSizeSchedule",
    "Controller",
    "CriticalBatchSize",
    "GradientController",
    "GradientNoiseScale",
    "GradientNormRecorder",
    "HypergradientLearningRate",
    "LearningRateFinder",
    "LearningRateLogger",
    "LossRecorder",
    "MagnitudePruning",
    "PrecisionSchedule",
    "ScheduleFreeEvaluation",
    "ScheduleHyperparameter",
    "Snapshot",
    "StabilityMonitor",
    "TrainingState",
    "VolSched",
    "WeightAveraging",
]
