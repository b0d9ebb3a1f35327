"""Which run the state of a callback belongs to."""

import weakref


class Run:
    """A model, compiled with an optimizer: the same model with another optimizer is another run.

    It keeps neither of them alive. A copy, also by pickling, is equal to no run.

    Args:
        model: A compiled model, or `None` for no run.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, model=None):
        parts = () if model is None else (model, model.optimizer)
        self._parts = tuple(None if each is None else weakref.ref(each) for each in parts)

    def __eq__(self, other):
        return isinstance(other, Run) and bool(self._parts) and self._parts == other._parts

    def __reduce__(self):
        return Run, ()
