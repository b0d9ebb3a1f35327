"""Rematerialization around quantized layers, which would run them twice, with other random numbers."""

from keras_lrsched._core import keras_private
from keras_lrsched.precision.layers import Quantized


def leave_out(model):
    """Let no layer that has quantized layers in it be rematerialized as a whole; those beside them still are."""
    for layer in keras_private.layers_of(model):
        if any(isinstance(inner, Quantized) for inner in keras_private.layers_of(layer)):
            vars(layer)["rematerialized_call"] = _called_once


def put_back(model):
    """Undo `leave_out`."""
    for layer in keras_private.layers_of(model):
        if vars(layer).get("rematerialized_call") is _called_once:
            del vars(layer)["rematerialized_call"]


def _called_once(layer_call, *args, **kwargs):
    return layer_call
