"""`keras-lrsched list` and `plot`: which schedules there are, and how they look."""

from pathlib import Path

from keras_lrsched._core import registry
from keras_lrsched.cli.support import (
    add_output,
    check_output,
    check_picture,
    files_of,
    positive,
    require,
    share,
    show,
    usage_errors,
)


def add(commands):
    command = commands.add_parser("list", help="every schedule and optimizer, with its paper, and every workload")
    command.set_defaults(run=list_all)

    command = commands.add_parser("plot", help="draw schedules over a number of updates")
    command.add_argument(
        "names", nargs="+", metavar="NAME", help="a name of `list`, name:option=value:option=value, or file:PATH"
    )
    command.add_argument("--steps", type=positive(int), default=1000, help="updates (default: 1000)")
    command.add_argument("--warmup", type=share, default=0.05, help="warmup as a share of the updates (default: 0.05)")
    add_output(command, "schedules.png", "the picture")
    command.set_defaults(run=plot)


def list_all(arguments) -> int:
    from keras_lrsched import schedules
    from keras_lrsched.study.workloads import WORKLOADS

    assert schedules.names()  # importing the room fills the registry
    entries = [row for row in registry.entries("schedules") if row.name]

    show(
        "Schedules",
        ["name", "schedule", "class", "paper"],
        [[row.name, row.title, row.target.__name__, row.paper or "-"] for row in entries if row.kind == "learning rate"],
    )
    show(
        "Other schedules",
        ["name", "schedule", "what it schedules", "class", "paper"],
        [
            [row.name, row.title, row.kind, row.target.__name__, row.paper or "-"]
            for row in entries
            if row.kind != "learning rate"
        ],
    )
    show(
        "Combinators",
        ["class", "what it does"],
        [[row.target.__name__, row.title] for row in registry.entries("schedules", "combinator")],
    )
    show(
        "Optimizers",
        ["name", "optimizer", "class", "paper"],
        [
            [row["name"], row["title"], row["target"], row.get("paper", "-")]
            for row in registry.read("optimizers")
            if row["name"]
        ],
    )
    show(
        "Workloads",
        ["name", "workload", "target", "data"],
        [
            [
                name,
                each.title,
                f"{each.metric} {each.target:g}",
                _source(each),
            ]
            for name, each in WORKLOADS.items()
        ],
    )
    return 0


def _source(workload):
    return "--data-dir" if workload.needs_data_dir else "installed packages"


def plot(arguments) -> int:
    from keras_lrsched import schedules

    check_output(arguments.out, files_of(arguments.names), arguments.force)
    with usage_errors(ImportError, OSError, ValueError):
        require("matplotlib", "plot")
        check_picture(arguments.out)
        drawn = {
            name: schedules.get(name, 1.0, arguments.steps, int(arguments.warmup * arguments.steps))
            for name in arguments.names
        }
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    ax = figure.subplots()
    for name, schedule in drawn.items():
        schedule.plot(arguments.steps, ax=ax, label=name)
    ax.set_ylabel("fraction of the peak")
    ax.legend(frameon=False)
    with usage_errors(OSError, ValueError):
        figure.savefig(Path(arguments.out).expanduser(), dpi=120)
    print(arguments.out)
    return 0
