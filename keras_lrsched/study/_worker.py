"""Worker process of a study: reads trials from its standard input and writes outcomes to its standard output.

It is started as a new Python process and not by `multiprocessing`, whose children run the main program of the user again.
Core, threads and streams are set before anything is imported: what the user's functions print goes to standard error.
"""

import gc
import importlib.util
import os
import pickle
import queue
import re
import signal
import struct
import sys
import threading
from typing import IO, Any

import keras

COMMAND = """
import os, sys
core, *sys.path[:] = sys.argv[1:]
if core and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {int(core)})
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
from keras_lrsched.study._worker import main
main(answers)
"""

READY = "ready"
"""The first answer, when model and data have been received."""

THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}
SHARED_DEVICE = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
NOTES = re.compile(r"[IWEF]\d{4} \d\d:|WARNING: All log messages before absl|To enable the following instructions")
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}


def main(answers: IO[bytes]) -> None:
    """Run trials until the program ends that has started this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the program ends its workers
    messages: queue.Queue = queue.Queue()
    threading.Thread(target=_listen, args=(messages,), daemon=True).start()
    _configure(pickle.loads(messages.get()))
    runner = pickle.loads(messages.get())
    send(answers, READY)
    gc.collect()
    gc.freeze()
    while True:
        trial = pickle.loads(messages.get())
        if not runner.reuse_model:
            keras.backend.clear_session()
        send(answers, runner(trial))
        gc.collect()


def _listen(messages: queue.Queue) -> None:
    try:
        while True:
            messages.put(receive_bytes(sys.stdin.buffer))
    except (OSError, EOFError):
        os._exit(0)


def configuration() -> dict[str, Any]:
    """Global settings of Keras in the program, which its workers have, too."""
    return {
        "set_floatx": keras.config.floatx(),
        "set_epsilon": keras.config.epsilon(),
        "set_image_data_format": keras.config.image_data_format(),
        "set_dtype_policy": keras.config.dtype_policy().name,
    }


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        getattr(keras.config, name)(value)
    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)


def environment(backend: str) -> dict[str, str]:
    """The environment of a worker: the backend of the program, one thread, and no claim to all of a device's memory."""
    defaults = {**SHARED_DEVICE, **QUIET}
    return {**defaults, **os.environ, **THREADS, "KERAS_BACKEND": backend, "PYTHONUNBUFFERED": "1"}


def dumps(value: Any) -> bytes:
    """Bytes of an object, functions of the main program and lambdas included where cloudpickle is installed."""
    if importlib.util.find_spec("cloudpickle") is None:
        content = pickle.dumps(value)
        if b"__main__" in content:
            raise pickle.PicklingError("it is part of the main program")
        return content
    import cloudpickle

    return cloudpickle.dumps(value)


def send(stream: IO[bytes], value: Any) -> None:
    send_bytes(stream, pickle.dumps(value))


def send_bytes(stream: IO[bytes], content: bytes) -> None:
    stream.write(struct.pack("<Q", len(content)))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    return pickle.loads(receive_bytes(stream))


def receive_bytes(stream: IO[bytes]) -> bytes:
    size = struct.unpack("<Q", _exactly(stream, 8))[0]
    return _exactly(stream, size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if content is None or len(content) < size:
        raise EOFError
    return content


def last_lines(log: IO[bytes]) -> str:
    """The last lines that a worker has printed, without those of TensorFlow's libraries."""
    log.seek(0)
    lines = [" ".join(line.split()) for line in log.read().decode(errors="replace").splitlines()]
    return " | ".join([line for line in lines if line and not NOTES.match(line)][-6:])


def ending(code: int) -> str:
    """The end of a process in words."""
    if code >= 0:
        return f"It has ended with code {code}"
    try:
        return f"It was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"It was ended by signal {-code}"
