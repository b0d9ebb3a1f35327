"""Resumable streams of batches whose size and content follow schedules."""

from keras_lrsched.data.masked_language_model_masking import MaskedLanguageModelMasking
from keras_lrsched.data.scheduled_batches import ScheduledBatches

__all__ = ["MaskedLanguageModelMasking", "ScheduledBatches"]
