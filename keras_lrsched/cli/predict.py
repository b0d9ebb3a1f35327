"""`keras-lrsched predict`: fit a law on short runs, predict other schedules, find the best one."""

from pathlib import Path

from keras_lrsched.cli.support import (
    UsageError,
    add_output,
    check_output,
    check_picture,
    files_of,
    list_of,
    positive,
    require,
    share,
    show,
    usage_errors,
)

KINDS = {"multi_power": "MultiPowerLaw", "annealing": "AnnealingLaw", "convex_bound": "ConvexBound"}

GRADES = (("good", 0.01), ("fair", 0.03))
"""Up to which part of the loss, missed for an eighth of the run, a law is how good."""
POOR = "poor"


def add(commands):
    predict = commands.add_parser("predict", help="what schedules will cost, from one to three short runs")
    steps = predict.add_subparsers(required=True, metavar="STEP")

    command = steps.add_parser(
        "fit",
        help="fit a law on recorded runs",
        examples=(
            "predict fit cosine.npz wsd.npz -o law.json",
            "predict fit runs.csv#cosine --learning-rate lr --loss train/loss",
        ),
    )
    command.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="files of LossRecorder, or the logs of other programs that `LossCurve.read` takes; one of several runs as "
        "FILE#NUMBER, FILE#NAME, or FILE#column=value,column=value",
    )
    command.add_argument("--learning-rate", metavar="LR", help="a column of the logs, or a number (default: a usual name)")
    command.add_argument(
        "--loss", type=lambda text: text.split(","), help="a column of the logs, or several that add up to it"
    )
    command.add_argument("--steps-per-epoch", type=positive(int), help="for logs that count epochs")
    command.add_argument("--first", type=int, choices=(0, 1), help="what the logs call the first update or epoch")
    command.add_argument("--drop-nan", action="store_true", help="leave out losses that are not finite")
    command.add_argument(
        "--law", choices=KINDS, help="default: multi_power for runs of three schedules or more, else convex_bound"
    )
    add_output(command, "law.json", "the law")
    command.set_defaults(run=fit)

    command = steps.add_parser(
        "loss",
        help="predict the loss of schedules",
        examples=("predict loss law.json --schedules cosine,linear,wsd --steps 10000",),
    )
    command.add_argument("law", metavar="LAW", help="a file of `predict fit`")
    command.add_argument(
        "--schedules", type=lambda text: text.split(","), default=["constant", "cosine", "linear", "rex", "wsd"],
        help="names, separated by commas, or file:PATH; see `plot`",
    )  # fmt: skip
    _add_run(command)
    add_output(command, "predicted.png", "the picture")
    command.set_defaults(run=loss)

    command = steps.add_parser(
        "best",
        help="the schedule with the lowest predicted loss",
        examples=("predict best law.json --steps 10000 -o best.json", "plot file:best.json --steps 10000"),
    )
    command.add_argument("law", metavar="LAW", help="a file of `predict fit`")
    _add_run(command)
    add_output(command, "best.json", "for `compare --schedules file:...`")
    command.set_defaults(run=best)


def _add_run(command):
    command.add_argument("--steps", type=list_of(int), help="updates, one or more (default: as in the fitted runs)")
    command.add_argument("--peak", type=positive(float), help="the peak learning rate (default: that of the fitted runs)")
    command.add_argument("--warmup", type=share, default=0.05, help="warmup as a share of the updates (default: 0.05)")


def fit(arguments) -> int:
    with usage_errors(ImportError, OSError, ValueError):
        from keras_lrsched import laws

        runs = [_file_and_run(name) for name in arguments.runs]
        check_output(arguments.out, [path for path, _ in runs], arguments.force)
        options = {
            "learning_rate": _number_or_name(arguments.learning_rate),
            "loss": arguments.loss,
            "steps_per_epoch": arguments.steps_per_epoch,
            "first": arguments.first,
            "drop_nan": arguments.drop_nan,
        }
        curves = [laws.LossCurve.read(path, run=run, **options) for path, run in runs]
        law = getattr(laws, KINDS[arguments.law or _usual_law(curves)]).fit(curves)
        law.save(arguments.out)
    rows = []
    for curve in curves:
        after = curve.between(curve.peak_step).subsample(400)
        error = abs(law.residuals(after)).mean()
        rows.append([curve.name, f"{len(curve.rates)}", f"{curve.rates.max():.6g}", f"{error:.2%}", _grade(law, after)])
    show(repr(law), ["run", "updates", "peak", "mean error of the law", "the law is"], rows)
    for grade, limit in GRADES:
        print(f"{grade}: it misses no eighth of the run by more than {limit:.0%} of the loss beyond the noise")
    print(f"{POOR}: it misses one by more; do not trust what it predicts")
    print(arguments.out)
    return 0


def _usual_law(curves):
    """The law that the docs recommend for as many different schedules."""
    schedules = {curve.rates.tobytes() for curve in curves}
    return "multi_power" if len(schedules) >= 3 else "convex_bound"


def _grade(law, curve):
    from keras_lrsched.laws.diagnostics import lasting_misfit

    misfit = lasting_misfit(law, curve)
    return next((grade for grade, limit in GRADES if misfit <= limit), POOR)


def _file_and_run(name):
    """A path, and the number, name or columns of a run in it, if there are any behind a `#`."""
    path, mark, run = name.rpartition("#")
    if not mark or Path(name).expanduser().exists():
        return name, None
    if run.isdecimal():
        return path, int(run)
    return path, dict(part.split("=", 1) for part in run.split(",")) if "=" in run else run


def _number_or_name(text):
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def loss(arguments) -> int:
    law = _law(arguments)
    check_output(arguments.out, [arguments.law, *files_of(arguments.schedules)], arguments.force)
    with usage_errors(ImportError, OSError, ValueError):
        require("matplotlib", "plot")
        check_picture(arguments.out)
        figure, axes = _panels(arguments.steps)
        rows = []
        for label in arguments.schedules:
            chosen = [_schedule(label, arguments, steps) for steps in arguments.steps]
            losses = [law.final_loss(schedule, steps) for schedule, steps in zip(chosen, arguments.steps, strict=True)]
            rows.append([label, *(f"{value:.4f}" for value in losses)])
            for schedule, steps, ax in zip(chosen, arguments.steps, axes, strict=True):
                _draw(law, schedule, steps, label, ax)
        axes[-1].legend(frameon=False)
        figure.savefig(Path(arguments.out).expanduser(), dpi=120)
    show("Predicted losses", ["schedule", *(f"loss after {steps}" for steps in arguments.steps)], rows)
    print(arguments.out)
    return 0


def best(arguments) -> int:
    law = _law(arguments)
    check_output(arguments.out, [arguments.law], arguments.force)
    if len(arguments.steps) != 1:
        raise UsageError("The best schedule is one for one number of updates: give --steps once.")
    steps = arguments.steps[0]
    with usage_errors(OSError, ValueError):
        if not hasattr(law, "optimize"):
            raise ValueError(f"{type(law).__name__} predicts schedules, it cannot find the best one.")
        schedule = law.optimize(steps, arguments.peak, warmup_steps=int(arguments.warmup * steps))
        schedule.save(arguments.out)
    schedules = {arguments.out: schedule}
    schedules |= {label: _schedule(label, arguments, steps) for label in ("cosine", "linear", "wsd")}
    rows = [[label, f"{law.final_loss(each, steps):.4f}"] for label, each in schedules.items()]
    show("Predicted losses", ["schedule", f"loss after {steps}"], rows)
    print(arguments.out)
    return 0


def _law(arguments):
    """The law, and the run that is asked about: by default one like those that the law was fitted to."""
    with usage_errors(ImportError, OSError, ValueError):
        from keras_lrsched.laws import Law

        law = Law.load(arguments.law)
    arguments.steps = arguments.steps or [law.fitted.get("steps")]
    arguments.peak = arguments.peak or law.fitted.get("learning_rate")
    if None in (*arguments.steps, arguments.peak):
        raise UsageError(f"{arguments.law} does not say what it was fitted to: give --steps and --peak.")
    arguments.steps = [int(steps) for steps in arguments.steps]
    return law


def _schedule(label, arguments, steps):
    from keras_lrsched import schedules

    return schedules.get(label, arguments.peak, steps, warmup_steps=int(arguments.warmup * steps))


def _panels(steps):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 6 * len(steps), 4.5), layout="constrained")
    axes = figure.subplots(1, len(steps), squeeze=False)[0]
    for ax, number in zip(axes, steps, strict=True):
        ax.set(xlabel="updates", ylabel="predicted loss", title=f"{number} updates")
    return figure, axes


def _draw(law, schedule, steps, label, ax):
    """The curve from a twentieth of the run on; before, the law's loss is steep and means nothing."""
    import numpy as np

    at = np.unique(np.linspace(steps // 20, steps - 1, 500).astype(int))
    ax.plot(at, law.predict(schedule, steps, at=at), label=Path(label).name)
