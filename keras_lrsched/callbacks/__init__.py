"""Callbacks: watch training, set values."""

from keras_lrsched.callbacks.loss_recorder import LossRecorder

__all__ = ["LossRecorder"]
