"""The state of any callback, as far as it can be known."""

import keras

from keras_lrsched.callbacks import state_file

_COMPARISONS = {"less": keras.ops.less, "greater": keras.ops.greater}


def get(callback):
    """What its `state` method gives; without one, all attributes that a file of state can hold, but no strings.

    These are settings, and often paths: a run that goes on writes where its own script says, and not where a file says.
    """
    if _says_itself(callback):
        return callback.state()
    state = {name: value for name, value in vars(callback).items() if name != "params" and _is_state(value)}
    if vars(callback).get("monitor_op") in _COMPARISONS.values():  # which Keras decides on only when the first epoch ends
        state["monitor_op"] = callback.monitor_op.__name__
    return state


def restore(callback, state):
    """Puts back what `get` gave."""
    if _says_itself(callback):
        callback.restore_state(state)
        return
    vars(callback).update({name: value for name, value in state.items() if _is_state(value)})
    if state.get("monitor_op") in _COMPARISONS:
        callback.monitor_op = _COMPARISONS[state["monitor_op"]]


def with_epoch(history, epoch, logs):
    """The state of a `History`, with an epoch that is just ending, of which it is told later than other callbacks."""
    if logs is None or epoch in history["epoch"]:
        return history
    columns = {name: [*history["history"].get(name, []), float(value)] for name, value in logs.items()}
    return {"history": {**history["history"], **columns}, "epoch": [*history["epoch"], epoch]}


def _is_state(value):
    return state_file.is_plain(value) and not isinstance(value, str)


def _says_itself(callback):
    return hasattr(callback, "state") and hasattr(callback, "restore_state")
