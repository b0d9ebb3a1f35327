"""The command line: `keras-lrsched list | plot | compare | doctor`.

Wrong input ends with one line on stderr and exit code 2, before anything is written. Keras is imported late, since that
takes seconds and depends on the backend that is asked for.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import sys

from rich.console import Console
from rich.table import Table

from keras_lrsched.version import __version__

BACKENDS = ("tensorflow", "jax", "torch")


class UsageError(Exception):
    """What the user asked for cannot be done; the message is the one line that says why."""


def main(argv=None) -> int:
    arguments = _parser().parse_args(argv)
    arguments.words = sys.argv[1:] if argv is None else argv
    try:
        _load_keras(arguments.backend)
        return arguments.run(arguments)
    except UsageError as error:
        print(f"keras-lrsched: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _parser():
    parser = argparse.ArgumentParser(prog="keras-lrsched", description="Which learning rate, which schedule?")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--backend", metavar="NAME", help=f"{', '.join(BACKENDS)}; default: what Keras is set to")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="every schedule, with its paper, and every workload")
    command.set_defaults(run=list_all)

    command = commands.add_parser("plot", help="draw schedules over a number of updates")
    command.add_argument("names", nargs="+", metavar="NAME", help="a name of `list`, or name:option=value:option=value")
    command.add_argument("--steps", type=_positive(int), default=1000, help="updates (default: 1000)")
    command.add_argument("--warmup", type=_share, default=0.05, help="warmup as a share of the updates (default: 0.05)")
    command.add_argument("-o", "--out", default="schedules.png", help="the picture (default: schedules.png)")
    command.set_defaults(run=plot)

    command = commands.add_parser("compare", help="train real models under several schedules, and see who wins")
    command.add_argument("--workload", default="digits", help="one or more, separated by commas (default: digits)")
    command.add_argument(
        "--schedules", default="constant,cosine,linear,rex,wsd", help="names, separated by commas, or `all`; see `plot`"
    )
    command.add_argument("--budget", type=_list(int), help="updates a run, one or more (default: the workload's)")
    command.add_argument("--seeds", type=_positive(int), default=3, help="runs of each kind (default: 3)")
    command.add_argument("--learning-rate", type=_positive(float), help="the common peak (default: the workload's)")
    command.add_argument("--warmup", type=_share, default=0.05, help="warmup as a share of the budget (default: 0.05)")
    command.add_argument("--evaluations", type=_positive(int), default=10, help="on held-out data, a run (default: 10)")
    command.add_argument("--data-dir", help="folder with the data of cifar10 and shakespeare")
    command.add_argument("--out", default="comparison", help="folder for the results (default: comparison)")
    command.set_defaults(run=compare)

    command = commands.add_parser("doctor", help="versions, backend, devices, and what is compiled")
    command.set_defaults(run=doctor)
    return parser


def _positive(kind):
    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be positive: {text}")
        return value

    parse.__name__ = kind.__name__
    return parse


def _list(kind):
    parse = _positive(kind)
    return lambda text: [parse(part) for part in text.split(",")]


def _share(text):
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1: {text}")
    return value


@contextlib.contextmanager
def _usage_errors(*kinds):
    """Turns errors of these kinds, which name a mistake of the user, into one line."""
    try:
        yield
    except kinds as error:
        raise UsageError(str(error)) from error


def _load_keras(backend):
    """Imports Keras on the backend that was asked for, or that Keras is set to."""
    backend = backend or os.environ.get("KERAS_BACKEND")
    if backend is not None:
        if backend not in BACKENDS:
            raise UsageError(f"Unknown backend {backend!r}. Known: {', '.join(BACKENDS)}.")
        if importlib.util.find_spec(backend) is None:
            raise UsageError(f"The backend {backend!r} is not installed: pip install 'keras-lrsched[{backend}]'")
        os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _usage_errors(ImportError, ValueError), _silent_stderr():
        import keras

        importlib.import_module("keras_lrsched.schedules")
        _devices()  # looking for a GPU is when CUDA complains that there is none
    if backend not in (None, keras.backend.backend()):
        raise UsageError(
            f"Keras already runs on {keras.backend.backend()!r}: {backend!r} must be set before it is imported."
        )


@contextlib.contextmanager
def _silent_stderr():
    """Keeps what TensorFlow's libraries write to the file descriptor itself, before they can be told not to."""
    try:
        kept = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def list_all(arguments) -> int:
    from keras_lrsched.schedules import catalog
    from keras_lrsched.workloads import WORKLOADS

    table = Table("name", "schedule", "class", "paper", title="Schedules", title_justify="left")
    for entry in catalog.CATALOG:
        table.add_row(entry.name, entry.title, entry.schedule.__name__, entry.reference)
    others = Table("name", "schedule", "what it schedules", "class", "paper", title="Other schedules", title_justify="left")
    for entry in catalog.OTHERS:
        others.add_row(entry.name, entry.title, entry.kind, entry.schedule.__name__, entry.reference)
    combinators = Table("class", "what it does", title="Combinators", title_justify="left")
    for schedule in catalog.COMBINATORS:
        combinators.add_row(schedule.__name__, _first_line(schedule))
    workloads = Table("name", "workload", "target", "data", title="Workloads", title_justify="left")
    for name, workload in WORKLOADS.items():
        comes_from = "--data-dir" if workload.needs_data_dir else "installed packages"
        workloads.add_row(name, workload.title, f"{workload.metric} {workload.target:g}", comes_from)
    Console().print(table, others, combinators, workloads)
    return 0


def _first_line(documented):
    """The first line of a docstring, without its formula."""
    return (documented.__doc__ or "").partition("\n")[0].partition(":")[0].rstrip(".")


def plot(arguments) -> int:
    from keras_lrsched.schedules import catalog

    with _usage_errors(ValueError, ImportError):
        _require("matplotlib", "plot")
        schedules = {
            name: catalog.parse(name, 1.0, arguments.steps, int(arguments.warmup * arguments.steps))
            for name in arguments.names
        }
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    ax = figure.subplots()
    for name, schedule in schedules.items():
        schedule.plot(arguments.steps, ax=ax, label=name)
    ax.set_ylabel("fraction of the peak")
    ax.legend(frameon=False)
    with _usage_errors(OSError, ValueError):
        figure.savefig(arguments.out, dpi=120)
    print(arguments.out)
    return 0


def compare(arguments) -> int:
    import keras
    from rich.markdown import Markdown

    from keras_lrsched import workloads
    from keras_lrsched.schedules import catalog
    from keras_lrsched.workloads import report
    from keras_lrsched.workloads.compare import Trainer, plan

    labels = catalog.names() if arguments.schedules == "all" else arguments.schedules.split(",")
    with _usage_errors(ValueError, OSError, ImportError):
        for package in ("matplotlib", "tensorboard"):
            _require(package, "compare")
        chosen = [workloads.load(name, arguments.data_dir) for name in arguments.workload.split(",")]
        jobs = plan(chosen, labels, arguments.seeds, arguments.budget, arguments.learning_rate, arguments.warmup)
        folder = report.new_folder(arguments.out)

    runs, interrupted = [], False
    console = Console()
    with _progress(console) as progress:
        try:
            for workload in chosen:
                mine = [job for job in jobs if job.workload is workload]
                task = progress.add_task(workload.name, total=sum(job.budget for job in mine), now="building the model")
                trainer = Trainer(workload)
                for job in mine:
                    progress.update(task, now=f"{job.label}, {job.budget} updates, seed {job.seed}")
                    advance = keras.callbacks.LambdaCallback(
                        on_train_batch_end=lambda batch, logs, task=task: progress.advance(task)
                    )
                    runs.append(trainer.run(job, arguments.evaluations, callbacks=[advance]))
                progress.update(task, now="")
        except KeyboardInterrupt:
            interrupted = True
    command = shlex.join(["keras-lrsched", *arguments.words])
    with _silent_stderr():  # the event files are written by TensorFlow's libraries
        report.write(runs, folder, len(jobs), command)
    console.print(Markdown(report.markdown(runs, len(jobs), command)))
    console.print(f"\n{len(runs)} of {len(jobs)} runs. Tables, curves and pictures: {folder}/", highlight=False)
    return 130 if interrupted else 0


def _require(package, extra):
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"This needs {package}: pip install 'keras-lrsched[{extra}]'")


def _progress(console):
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
        console=console,
    )


def doctor(arguments) -> int:
    import keras

    table = Table(show_header=False, title="keras-lrsched doctor", title_justify="left")
    table.add_row("keras-lrsched", __version__)
    table.add_row("Python", f"{platform.python_version()} on {platform.platform()}")
    for package in ("keras", *BACKENDS, "numpy", "scikit-learn", "matplotlib", "pillow", "tensorboard"):
        table.add_row(package, _version(package))
    table.add_row("backend", keras.backend.backend())
    table.add_row("devices", ", ".join(_devices()))
    table.add_row("float type", keras.config.floatx())
    table.add_row("compiled kernels", "none in this version: every method runs as plain Keras operations")
    Console().print(table)
    return 0


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _devices():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    if keras.backend.backend() == "jax":
        import jax

        return [str(device) for device in jax.devices()]
    import torch

    return ["cpu", *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))]
