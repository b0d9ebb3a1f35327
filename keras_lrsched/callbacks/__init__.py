"""Callbacks: watch training, set values."""

from keras_lrsched.callbacks.learning_rate_logger import LearningRateLogger
from keras_lrsched.callbacks.loss_recorder import LossRecorder
from keras_lrsched.callbacks.schedule_hyperparameter import ScheduleHyperparameter

__all__ = ["LearningRateLogger", "LossRecorder", "ScheduleHyperparameter"]
