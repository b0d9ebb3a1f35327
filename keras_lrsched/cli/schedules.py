"""`keras-lrsched list` and `plot`: which schedules there are, and how they look."""

from rich.console import Console
from rich.table import Table

from keras_lrsched.cli.support import add_output, check_output, files_of, positive, require, share, usage_errors


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
    from keras_lrsched.optimizers import catalog as optimizers
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
    methods = Table("name", "optimizer", "class", "paper", title="Optimizers", title_justify="left")
    for row in optimizers.CATALOG:
        methods.add_row(row.name, row.title, row.optimizer.__name__, row.reference)
    workloads = Table("name", "workload", "target", "data", title="Workloads", title_justify="left")
    for name, workload in WORKLOADS.items():
        comes_from = "--data-dir" if workload.needs_data_dir else "installed packages"
        workloads.add_row(name, workload.title, f"{workload.metric} {workload.target:g}", comes_from)
    Console().print(table, others, combinators, methods, workloads)
    return 0


def _first_line(documented):
    """The first line of a docstring, without its formula."""
    return (documented.__doc__ or "").partition("\n")[0].partition(":")[0].rstrip(".")


def plot(arguments) -> int:
    from keras_lrsched.schedules import catalog

    check_output(arguments.out, files_of(arguments.names), arguments.force)
    with usage_errors(ImportError, OSError, ValueError):
        require("matplotlib", "plot")
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
    with usage_errors(OSError, ValueError):
        figure.savefig(arguments.out, dpi=120)
    print(arguments.out)
    return 0
