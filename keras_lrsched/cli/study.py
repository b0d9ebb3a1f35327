"""`keras-lrsched study`: compare optimizers and schedules on the user's model and data, with tuned learning rates."""

import importlib
import os
import sys
from pathlib import Path

from keras_lrsched.cli.support import UsageError, check_names, check_schedules, list_of, positive, share, show, usage_errors

EXAMPLES = (
    "study my_module:build --train my_module:train --validation my_module:val --loss mse --budget 1000 -o my_study",
    "study show my_study",
    "study recommend my_module:build --train my_module:train --validation my_module:val --budget 1000",
    "study --score study_a study_b study_c",
)


def add(commands):
    command = commands.add_parser(
        "study", help="compare optimizers and schedules on a model of your own, with tuned learning rates", examples=EXAMPLES
    )
    command.add_argument(
        "what",
        nargs="?",
        metavar="MODULE:FUNCTION",
        help="the function that builds the model; or `show DIR`, or `recommend`",
    )
    command.add_argument("of", nargs="?", metavar="DIR", help="of `show`: a study; of `recommend`: MODULE:FUNCTION")
    command.add_argument(
        "--score", nargs="+", metavar="DIR", help="the AlgoPerf score over several studies, and nothing else"
    )
    data = command.add_argument_group("model and data")
    data.add_argument("--train", metavar="MODULE:NAME", help="arrays (x, y), a data set, or a function of the seed")
    data.add_argument("--validation", metavar="MODULE:NAME", help="the same, held out")
    data.add_argument("--loss", help="as in `compile` (default: that of the compiled model)")
    data.add_argument("--metrics", help="as in `compile`, separated by commas")
    data.add_argument("--batch-size", type=positive(int), default=32, help="of arrays (default: 32)")
    choice = command.add_argument_group("what is compared")
    choice.add_argument("--optimizers", default="adamw", help="names, separated by commas (default: adamw)")
    choice.add_argument(
        "--schedules", default="constant,cosine,linear,rex,wsd", help="names, separated by commas; see `plot`"
    )
    choice.add_argument("--learning-rates", default="tuned", help="`tuned`, or one or more numbers (default: tuned)")
    length = choice.add_mutually_exclusive_group()
    length.add_argument("--budget", type=positive(int), help="optimizer steps of a run")
    length.add_argument("--epochs", type=positive(int), help="passes over the data, in the place of --budget")
    choice.add_argument("--warmup-steps", type=int, help="of a run of the whole budget (default: 5 %% of it)")
    choice.add_argument("--seeds", type=positive(int), default=5, help="runs of each kind (default: 5)")
    choice.add_argument("--metric", default="val_loss", help="whose last value counts (default: val_loss)")
    choice.add_argument(
        "--mode", choices=("min", "max"), default="min", help="whether lower or higher is better (default: min)"
    )
    choice.add_argument("--budget-fraction", type=share, default=0.05, help="of `recommend` (default: 0.05)")
    where = command.add_argument_group("how it is run")
    where.add_argument("--workers", type=positive(int), default=1, help="runs at once (default: 1)")
    where.add_argument(
        "--executor", choices=("serial", "processes", "ray"), help="(default: processes if there are workers)"
    )
    where.add_argument(
        "-o", "--out", help="folder of the study, in which it goes on if it was interrupted (default: my_study)"
    )
    command.set_defaults(run=study, needs_keras=False, needs_backend=False)


def study(arguments) -> int:
    if arguments.score:
        return _score(arguments)
    if arguments.what is None:
        raise UsageError("Give MODULE:FUNCTION, which builds the model, `show DIR`, `recommend MODULE:FUNCTION` or --score.")
    if arguments.what == "show":
        return _show(arguments)
    recommends = arguments.what == "recommend"
    build = arguments.of if recommends else arguments.what
    if not recommends and arguments.of is not None:
        raise UsageError(f"There is nothing to do with {arguments.of!r}: the folder of a study is given by --out.")
    made = _made(arguments, build)
    return _recommend(made, arguments) if recommends else _run(made, arguments)


def _made(arguments, build):
    """The `Study` of the options; names are looked up before a framework is imported."""
    optimizers, schedules = arguments.optimizers.split(","), arguments.schedules.split(",")
    check_names("optimizer", "optimizers", [each.partition(":")[0] for each in optimizers])
    check_schedules(schedules)
    for option in ("train", "validation"):
        if getattr(arguments, option) is None:
            raise UsageError(f"--{option} is missing: MODULE:NAME of arrays, a data set, or a function of the seed.")
    if arguments.budget is None and arguments.epochs is None:
        raise UsageError("Give --budget, in optimizer steps, or --epochs.")
    rates = _rates(arguments.learning_rates)
    arguments.load_keras()
    from keras_lrsched.study import Study

    sys.path.insert(0, os.getcwd())  # as `python` and `python -m` do
    with usage_errors(ValueError, OSError, ImportError):
        return Study(
            _found("MODULE:FUNCTION", build),
            train=_found("--train", arguments.train),
            validation=_found("--validation", arguments.validation),
            loss=arguments.loss,
            metrics=arguments.metrics.split(",") if arguments.metrics else None,
            batch_size=arguments.batch_size,
            optimizers=optimizers,
            schedules=schedules,
            learning_rates=rates,
            budget=arguments.budget,
            epochs=arguments.epochs,
            warmup_steps=arguments.warmup_steps,
            seeds=arguments.seeds,
            metric=arguments.metric,
            mode=arguments.mode,
            workers=arguments.workers,
            executor=arguments.executor,
            directory=arguments.out or "my_study",
        )


def _rates(text):
    if text == "tuned":
        return text
    rates = list_of(float)(text)
    return rates[0] if len(rates) == 1 else rates


def _found(option, text):
    """The object that `MODULE:NAME` names."""
    module, colon, name = (text or "").partition(":")
    if not (module and colon and name):
        raise UsageError(f"{option} must be MODULE:NAME, as my_module:build. Received: {text}")
    try:
        found = importlib.import_module(module.removesuffix(".py").replace("/", "."))
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{option}: {error}. Modules are looked for in this folder and among installed packages."
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{option}: the module {module!r} has no {name!r}.")
        found = getattr(found, part)
    return found


def _run(made, arguments) -> int:
    with usage_errors(OSError):
        results, code = until_interrupted(lambda: made.run())
    if results is None:
        print(f"Interrupted; the same command goes on. Finished runs are kept in {made.journal.directory}/", file=sys.stderr)
        return code
    results.report(made.journal.directory)
    _print(results)
    print(f"Report: {made.journal.directory / 'report.html'}")
    return 0


def _recommend(made, arguments) -> int:
    with usage_errors(ImportError):
        found, code = until_interrupted(lambda: made.recommend(arguments.budget_fraction))
    if found is not None:
        print(found)
    return code


def until_interrupted(work):
    """The result of `work`, `None` after Ctrl-C or SIGTERM, and the exit code, as a shell gives it."""
    try:
        return work(), 0
    except KeyboardInterrupt:
        return None, 130
    except SystemExit as end:
        return None, end.code


def _show(arguments) -> int:
    if arguments.of is None:
        raise UsageError("Give the folder of a study: `study show DIR`.")
    _print(_loaded(arguments, arguments.of))
    return 0


def _loaded(arguments, directory):
    if not Path(directory).expanduser().is_dir():
        raise UsageError(f"There is no folder {directory!r}.")
    arguments.load_keras()
    from keras_lrsched.study import Results

    with usage_errors(ValueError, OSError):
        return Results.load(directory)


def _print(results):
    table = results.table()
    show(table.caption, table.header, table.cells)
    best = results.best()
    print(f"Best: {best.optimizer}, {best.schedule}, learning rate {best.learning_rate:.4g}.")


def _score(arguments) -> int:
    if arguments.what is not None:
        raise UsageError("--score takes the folders of studies, and no other arguments.")
    loaded = [_loaded(arguments, directory) for directory in arguments.score]
    from keras_lrsched.study import score

    with usage_errors(ValueError):
        scores = score(loaded)
    show(
        f"AlgoPerf score over {len(loaded)} studies: 1 is the fastest to the target in each",
        ["optimizer and schedule", "score"],
        [[", ".join(name) if isinstance(name, tuple) else name, f"{value:.3f}"] for name, value in scores.items()],
    )
    return 0
