"""SIGINT (Ctrl-C) and SIGTERM during a run that saves: the batch is finished and saved first, then the run ends.

Python raises `KeyboardInterrupt` between any two instructions, also inside of a framework's call, which may swallow it. A
flag that is read at the end of each batch is never lost, and all state is whole there.
"""

import contextlib
import os
import signal
import threading
import weakref
from typing import Any

from keras_lrsched._core import training_loop

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Watch:
    """Handlers for SIGINT and SIGTERM that only set a flag.

        watch.start()
        for batch in batches:
            train(batch)
            if watch.requested:
                save()
            watch.raise_if_requested()
        watch.stop()

    `raise_if_requested` ends the run as the signal would have: with `KeyboardInterrupt` after SIGINT, which ends a script
    with code 130 in a shell, and with `SystemExit(143)` after SIGTERM. Before it raises, it puts the former handlers back.
    A second signal has its usual effect at once.

    A handler of the program's own is called when the signal comes. What it raises is raised by `raise_if_requested`; if it
    raises nothing, `raise_if_requested` does not either, and the run goes on. A signal that is ignored, or that is handled
    outside of Python, is left alone.

    Started in a callback's method, the watch ends with that `fit`, also where an exception ends it, after which Keras calls
    no callback. In other threads than the main one, which cannot have handlers, it does nothing. A process that is forked
    meanwhile, such as a worker that loads data, ignores SIGINT, which a terminal sends to all processes of a run: its parent
    ends it.

    As a context manager, it starts and stops.
    """

    def __init__(self) -> None:
        self._replaced: dict[int, Any] = {}
        self._requested: int | None = None
        self._error: BaseException | None = None
        self._callbacks: weakref.ref | None = None

    @property
    def requested(self) -> int | None:
        """The number of the signal that has come; `None` if none has."""
        return self._requested

    def start(self) -> None:
        """Replace the handlers, until `stop`."""
        self._put_back()
        self._requested = self._error = None
        if threading.current_thread() is not threading.main_thread():
            return
        self._pid = os.getpid()
        callbacks = training_loop.callback_list()
        self._callbacks = None if callbacks is None else weakref.ref(callbacks, lambda _: self._put_back())
        for number in SIGNALS:
            former = signal.getsignal(number)
            if former not in (signal.SIG_IGN, None):  # `None` is a handler that Python did not set and could not put back
                self._replaced[number] = former
                signal.signal(number, self._handle)

    def stop(self) -> None:
        """Put the former handlers back, and raise what a signal has requested and `raise_if_requested` has not raised."""
        self._put_back()
        self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """Raise the exception of the signal, if one has come, and clear the flag."""
        error, self._requested, self._error = self._error, None, None
        if error is not None:
            self._put_back()
            raise error

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._put_back()
        if error is None:
            self.raise_if_requested()

    def _handle(self, number: int, frame: Any) -> None:
        former = self._replaced.get(number, signal.SIG_DFL)
        if os.getpid() != self._pid:
            if number != signal.SIGINT:
                _deliver(number, former, frame)
        elif self._is_over(frame):
            self._put_back()
            _deliver(number, former, frame)
        elif self._requested is not None:
            _deliver(number, former, frame)
        else:
            self._requested = number
            self._error = _error_of(number, former, frame)
            if self._error is not None:
                _announce(number)

    def _is_over(self, frame: Any) -> bool:
        """Return `True` if an exception has ended the `fit` that it was started in."""
        return self._callbacks is not None and not training_loop.is_running(self._callbacks(), frame)

    def _put_back(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, former in self._replaced.items():
                if signal.getsignal(number) == self._handle:  # else the program has replaced ours
                    signal.signal(number, former)
            self._replaced, self._callbacks = {}, None


def _error_of(number: int, handler: Any, frame: Any) -> Any:
    """The exception that the signal would raise; `None` if the program's own handler raises nothing."""
    if handler is signal.default_int_handler:
        return KeyboardInterrupt()
    if handler is signal.SIG_DFL:
        return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
    try:
        handler(number, frame)
    except BaseException as error:  # raised at the end of the batch
        return error
    return None


def _deliver(number: int, handler: Any, frame: Any) -> None:
    """Let the signal have its effect without a watch."""
    if callable(handler):
        handler(number, frame)
    else:
        signal.signal(number, handler)
        os.kill(os.getpid(), number)


def _announce(number: int) -> None:
    name = signal.Signals(number).name
    with contextlib.suppress(OSError):  # `print` could be interrupted in itself
        os.write(2, f"\n{name}: the run ends after this batch. A second {name} ends it at once.\n".encode())
