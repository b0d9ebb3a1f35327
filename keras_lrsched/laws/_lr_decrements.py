"""The decrements of a learning rate before an update, for the multi-power law: how far, from where, how long ago."""

from typing import NamedTuple

import numpy as np

EXACT = 64  # the latest updates are taken one by one,
GROWTH = 32  # earlier ones in groups whose length is at most this part of their age


class LRDecrements(NamedTuple):
    """For each of M updates t (rows), the falls d before it in N groups (columns).

    A sum over all updates k <= t of (lr_(k-1) - lr_k) * F(lr_k, S_k(t)) with a smooth F becomes a sum over columns of
    `fall * F(rate, since)`. A group of rises is kept apart from one of falls, so that a single step in the learning
    rate, whatever group it lies in, keeps its place exactly.
    """

    fall: np.ndarray
    """Fall of the learning rate within the group (M, N); negative for a rise."""
    rate: np.ndarray
    """The learning rate after the fall: its mean over the group, weighted with the falls."""
    since: np.ndarray
    """The sum of the rates from the fall on, up to and with update t; the same mean."""


def lr_decrements(learning_rate: np.ndarray, at: np.ndarray) -> LRDecrements:
    """The decrements before each of the updates `at`, in memory of the order len(at) * log(len(learning_rate))."""
    falls = np.diff(learning_rate, prepend=learning_rate[0]) * -1.0
    parts = [falls.clip(min=0), falls.clip(max=0)]
    grouped = [_grouped(part, learning_rate, at) for part in parts if part.any()]
    if not grouped:
        return LRDecrements(*np.zeros((3, len(at), 0)))
    return LRDecrements(*(np.concatenate(columns, axis=1) for columns in zip(*grouped, strict=True)))


def warmup_end(learning_rate: np.ndarray) -> int:
    """The update at which the first rise of the learning rate ends: where it first is as high as before its first fall.

    A rise may pause, as it does in steps of an epoch, or of several batches under gradient accumulation.
    """
    falls = np.flatnonzero(np.diff(learning_rate) < 0)
    before = learning_rate[: falls[0] + 1] if len(falls) else learning_rate
    return int(np.argmax(before))


def counted(learning_rate: np.ndarray, warmup: str) -> np.ndarray:
    """The rates whose rises and falls count: with `"full"` all of them, else the first rise is replaced by its peak."""
    if warmup == "full":
        return learning_rate
    end = warmup_end(learning_rate)
    return np.concatenate([np.full(end, learning_rate[end]), learning_rate[end:]])


def _grouped(falls: np.ndarray, learning_rate: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.maximum(at[:, None] + 1 - _ages(len(learning_rate)), 0)  # exclusive, from now back to the start
    newest, oldest = ends[:, :-1], ends[:, 1:]

    def sums(values: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0.0], np.cumsum(values)])
        return total[newest] - total[oldest]

    before = np.cumsum(learning_rate) - learning_rate
    fall = sums(falls)
    empty = newest == oldest
    weight = np.where(empty | (fall == 0), 1.0, fall)
    rate = np.where(fall == 0, 1.0, sums(falls * learning_rate) / weight)
    since = np.where(fall == 0, 0.0, (before + learning_rate)[at][:, None] - sums(falls * before) / weight)
    return fall, rate.clip(min=0), since.clip(min=0)


def _ages(steps: int) -> np.ndarray:
    """Borders between the groups, in updates before now: 0, 1, 2, ..., then growing in proportion."""
    ages = list(range(EXACT + 1))
    while ages[-1] < steps:
        ages.append(ages[-1] + max(1, ages[-1] // GROWTH))
    return np.array(ages)
