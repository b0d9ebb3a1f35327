"""The usual names of what a log has: its counter, the loss, the learning rate."""

import re

from keras_lrsched.laws._logs.log import LogError

STEPS = (
    "trainer/global_step",
    "train/global_step",
    "global_step",
    "step",
    "iter",
    "iteration",
    "iterations",
    "update",
    "num_updates",
    "_step",
)
EPOCHS = ("epoch", "epochs")
LOSSES = (
    "loss",
    "train_loss_step",
    "train/loss_step",
    "train_loss",
    "train/loss",
    "training_loss",
    "training/loss",
    "loss/train",
    "batch_loss",
    "lm_loss",
    "epoch_loss",
    "train_loss_epoch",
    "train/loss_epoch",
)
RATES = (
    "learning_rate",
    "lr",
    "train/learning_rate",
    "train/lr",
    "train_learning_rate",
    "train_lr",
    "epoch_learning_rate",
    "epoch_lr",
    "optimizer/learning_rate",
    "optimizer/lr",
    "lr/pg1",  # of Ultralytics: the weights; pg0 are the biases, which warm up from above
)
LIGHTNING_RATE = re.compile(r"lr-[^/]+(/pg\d+)?")
RUNS = ("run", "run_id", "run_name", "experiment", "trial", "seed", "schedule", "workload")
"""Columns that differ between runs only."""
TENSORBOARD_TABLE = {"wall_time", "step", "value"}


def plain(name):
    """A name as it stands in the lists above."""
    return re.sub(r"[\s.]+", "_", name.strip().lower())


def first_of(usual, columns):
    """The first column with a usual name, or `None`."""
    by_plain = {plain(name): name for name in reversed(columns)}
    return next((by_plain[name] for name in usual if name in by_plain), None)


def loss_of(columns):
    """The column with the training loss.

    Raises:
        LogError: If none has a usual name.
    """
    found = first_of(LOSSES, columns)
    if found is None and {plain(name) for name in columns} == TENSORBOARD_TABLE:
        found = first_of(("value",), columns)
    if found is None:
        raise LogError(
            "The log has no training loss under a usual name: pass loss=..., the name of its column, or a list of columns "
            f"that add up to it. It has: {', '.join(columns) or 'no columns'}"
        )
    return found


def rate_of(columns):
    """The column with the learning rate.

    Raises:
        LogError: If none has a usual name, or it is not clear which one is meant.
    """
    found = first_of(RATES, columns)
    others = [name for name in columns if LIGHTNING_RATE.fullmatch(name)]
    if found is None and len(others) == 1:
        return others[0]
    if found is None:
        what = f"several learning rates, {', '.join(others)}" if others else "no learning rate under a usual name"
        raise LogError(
            f"The log has {what}: pass learning_rate=..., the name of its column, a number, a schedule, or the rates of all "
            f"updates. It has: {', '.join(columns)}"
        )
    return found
