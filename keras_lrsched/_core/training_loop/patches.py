"""Changes of the class of an object, and of the step that a model trains by, for a while."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


def set_class(each: Any, kind: type) -> None:
    """Make an object one of another class, which has the same attributes."""
    each.__class__ = kind


@contextlib.contextmanager
def as_class(each: Any, kind: type) -> Iterator[None]:
    """A context in which an object is one of another class."""
    own = each.__class__
    each.__class__ = kind
    try:
        yield
    finally:
        each.__class__ = own


@contextlib.contextmanager
def batch_as_given(model: keras.Model, batch: Any) -> Iterator[None]:
    """A context in which `train_on_batch` gives a batch to the training step as `fit` does.

    `train_on_batch` makes a triple of it, `(x, y, None)`, which a `train_step` of the model's own cannot unpack.
    """
    model.make_train_function()
    train_function = model.train_function

    def train_on_the_same(*arguments: Any) -> Any:
        *state, data = arguments
        x, *others = next(iter(data))
        batches = [(x, *others)[: len(batch)] if isinstance(batch, tuple) else x]
        return train_function(*state, batches if isinstance(data, list) else iter(batches))  # PyTorch takes a list

    model.train_function = train_on_the_same
    try:
        yield
    finally:
        model.train_function = train_function
