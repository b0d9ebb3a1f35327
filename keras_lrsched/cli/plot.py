"""`keras-lrsched plot`: how schedules look."""

from pathlib import Path

from keras_lrsched.cli.support import (
    add_output,
    check_output,
    check_picture,
    check_schedules,
    files_of,
    positive,
    require,
    share,
    usage_errors,
)

EXAMPLES = ("plot rex linear wsd:decay_fraction=0.1", "plot cosine --steps 10000 --warmup 0.02 -o cosine.svg")


def add(commands) -> None:
    command = commands.add_parser("plot", help="draw schedules over a number of updates", examples=EXAMPLES)
    command.add_argument(
        "names", nargs="+", metavar="NAME", help="a name of `list`, name:option=value:option=value, or file:PATH"
    )
    command.add_argument("--steps", type=positive(int), default=1000, help="updates (default: 1000)")
    command.add_argument("--warmup", type=share, default=0.05, help="warmup as a share of the updates (default: 0.05)")
    add_output(command, "schedules.png", "the picture")
    command.set_defaults(run=plot, needs_keras=False)


def plot(arguments) -> int:
    check_output(arguments.out, files_of(arguments.names), arguments.force)
    check_schedules(arguments.names)
    with usage_errors(ImportError, OSError, ValueError):
        require("matplotlib", "plot")
        check_picture(arguments.out)
        arguments.load_keras()
        from keras_lrsched import schedules

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
