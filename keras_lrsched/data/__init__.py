"""Resumable streams of batches whose size and content follow schedules."""

from keras_lrsched._core import registry

_streams = registry.import_methods(__name__)
globals().update(_streams)
__all__ = sorted(_streams)
