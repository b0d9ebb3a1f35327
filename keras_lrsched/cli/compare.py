"""`keras-lrsched compare`: the built-in tasks under several schedules, a `Study` of each."""

import shlex
import shutil
import sys
from pathlib import Path

from keras_lrsched.cli.study import until_interrupted
from keras_lrsched.cli.support import (
    UsageError,
    check_names,
    check_schedules,
    list_of,
    positive,
    require,
    share,
    show,
    silent_stderr,
    usage_errors,
)

EXAMPLES = (
    "compare --workers 2",
    "compare --workload digits,pydoc --schedules cosine,linear,rex:a=0.1:b=0.9 --seeds 5 --out results",
)
INDEX = "report.md"


def add(commands):
    command = commands.add_parser(
        "compare", help="train built-in models under several schedules with tuned learning rates", examples=EXAMPLES
    )
    command.add_argument("--workload", default="digits", help="one or more, separated by commas (default: digits)")
    command.add_argument("--optimizers", help="names, separated by commas (default: the workload's)")
    command.add_argument(
        "--schedules", default="constant,cosine,linear,rex,wsd", help="names, separated by commas, or `all`; see `plot`"
    )
    command.add_argument("--budget", type=list_of(int), help="updates a run, one or more (default: the workload's)")
    command.add_argument("--seeds", type=positive(int), default=3, help="runs of each kind (default: 3)")
    command.add_argument(
        "--learning-rate", type=positive(float), help="a peak that all have in common (default: that of each is tuned)"
    )
    command.add_argument("--warmup", type=share, default=0.05, help="warmup as a share of the budget (default: 0.05)")
    command.add_argument("--evaluations", type=positive(int), default=10, help="on held-out data, a run (default: 10)")
    command.add_argument("--workers", type=positive(int), default=1, help="runs at once (default: 1)")
    command.add_argument("--data-dir", help="folder with the data of cifar10 and shakespeare")
    command.add_argument(
        "--out",
        default="comparison",
        help="folder, in which a comparison goes on if it was interrupted (default: comparison)",
    )
    command.add_argument("--force", action="store_true", help="replace an earlier comparison in this folder")
    command.set_defaults(run=compare, needs_keras=False)


def compare(arguments) -> int:
    check_names("workload", "study", arguments.workload.split(","))
    if arguments.optimizers:
        check_names("optimizer", "optimizers", [each.partition(":")[0] for each in arguments.optimizers.split(",")])
    if arguments.schedules != "all":
        check_schedules(arguments.schedules.split(","))
    with usage_errors(ImportError):
        for package in ("matplotlib", "tensorboard"):
            require(package, "compare")
    arguments.load_keras()
    with usage_errors(ValueError, OSError, ImportError):
        tasks = _tasks(arguments)
        folder = _folder(arguments.out, arguments.force)
        studies = {f"{workload.name}-{budget}": _study(arguments, folder, workload, budget) for workload, budget in tasks}
    return _run(arguments, studies, folder)


def _tasks(arguments):
    """Each workload with each of its budgets, for which the schedules were found to exist."""
    from keras_lrsched import schedules
    from keras_lrsched.study import workloads

    loaded = [workloads.load(name, arguments.data_dir) for name in arguments.workload.split(",")]
    tasks = [(workload, budget) for workload in loaded for budget in arguments.budget or workload.budgets]
    for workload, budget in tasks:
        for label in _schedules(arguments):
            schedules.get(label, workload.peak_learning_rate, budget, warmup_steps=int(arguments.warmup * budget))
    return tasks


def _schedules(arguments):
    from keras_lrsched import schedules

    return schedules.names() if arguments.schedules == "all" else arguments.schedules.split(",")


def _study(arguments, folder, workload, budget):
    from keras_lrsched.study import Study

    problem = workload.problem()
    if arguments.optimizers:
        problem |= {"optimizers": arguments.optimizers.split(","), "grid_center": None}
    return Study(
        **problem,
        schedules=_schedules(arguments),
        learning_rates=arguments.learning_rate or "tuned",
        budget=budget,
        warmup_steps=int(arguments.warmup * budget),
        seeds=arguments.seeds,
        evaluations=arguments.evaluations,
        workers=arguments.workers,
        directory=folder / f"{workload.name}-{budget}",
        reuse_model=True,
    )


def _run(arguments, studies, folder) -> int:
    """Make the runs of all studies, with a report as each is finished."""
    results, command = {}, shlex.join(["keras-lrsched", *arguments.words])
    for name, study in studies.items():
        print(f"{name}:", file=sys.stderr)
        found, code = until_interrupted(study.run)
        if found is None:
            print(f"Interrupted; the same command goes on. Finished runs are kept in {folder}/", file=sys.stderr)
            return code
        results[name] = found
        with silent_stderr():  # the event files are written by TensorFlow's libraries
            found.report(folder / name, title=f"{name.rpartition('-')[0]}, {study.budget} updates")
        (folder / INDEX).write_text(_index(results, len(studies), command), encoding="utf-8")
    for name, found in results.items():
        table = found.table()
        show(f"{name}: {table.caption}", table.header, table.cells)
    print(f"Tables, curves and pictures: {folder / INDEX}, {folder}/*/report.html")
    return 0


def _index(results, planned, command):
    """The tables of all studies in one file."""
    lines = ["# Comparison", "", f"    {command}", ""]
    if len(results) < planned:
        lines += [f"**{len(results)} of {planned} studies are finished.**", ""]
    for name, found in results.items():
        lines += [f"## [{name}]({name}/report.html)", "", found.table().markdown(), ""]
    if len(results) > 1:
        lines += _scores(results)
    return "\n".join(lines)


def _scores(results):
    from keras_lrsched.study import score

    try:
        scores = score(list(results.values()))
    except ValueError:  # other optimizers in each
        return []
    lines = [f"## AlgoPerf score over {len(results)} studies", "", "1 is the fastest to the target in each.", ""]
    lines += ["| optimizer and schedule | score |", "| --- | --- |"]
    return [*lines, *(f"| {', '.join(pair)} | {value:.3f} |" for pair, value in scores.items()), ""]


def _folder(path, replace):
    """The folder of a comparison, made if it is missing; it may hold one, which `replace` removes."""
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [item.name for item in folder.iterdir() if not _is_ours(item)]
    except OSError as error:
        raise UsageError(f"The output folder {str(path)!r} cannot be written to: {error.strerror}.") from error
    if others:
        raise UsageError(
            f"The output folder {str(path)!r} holds something else than a comparison: {', '.join(sorted(others)):.200}. "
            "Give another one by --out."
        )
    if replace:
        for item in folder.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    return folder


def _is_ours(item):
    return (item / "study.json").is_file() if item.is_dir() else item.name == INDEX
