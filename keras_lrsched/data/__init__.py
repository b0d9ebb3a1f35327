"""Resumable streams of batches whose size and content follow schedules."""

from keras_lrsched._core import registry

globals().update(registry.import_methods(__name__))
__all__ = registry.public_names(globals())
