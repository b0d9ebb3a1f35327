"""`keras-lrsched compare`: real models under several schedules."""

import shlex

from rich.console import Console

from keras_lrsched.cli.support import (
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

EXAMPLES = ("compare", "compare --workload digits,pydoc --schedules cosine,linear,rex:a=0.1:b=0.9 --seeds 5 --out results")


def add(commands):
    command = commands.add_parser(
        "compare", help="train real models under several schedules and compare them", examples=EXAMPLES
    )
    command.add_argument("--workload", default="digits", help="one or more, separated by commas (default: digits)")
    command.add_argument(
        "--schedules", default="constant,cosine,linear,rex,wsd", help="names, separated by commas, or `all`; see `plot`"
    )
    command.add_argument("--budget", type=list_of(int), help="updates a run, one or more (default: the workload's)")
    command.add_argument("--seeds", type=positive(int), default=3, help="runs of each kind (default: 3)")
    command.add_argument("--learning-rate", type=positive(float), help="the common peak (default: the workload's)")
    command.add_argument("--warmup", type=share, default=0.05, help="warmup as a share of the budget (default: 0.05)")
    command.add_argument("--evaluations", type=positive(int), default=10, help="on held-out data, a run (default: 10)")
    command.add_argument("--data-dir", help="folder with the data of cifar10 and shakespeare")
    command.add_argument("--out", default="comparison", help="folder for the results (default: comparison)")
    command.add_argument("--force", action="store_true", help="replace an earlier comparison in this folder")
    command.set_defaults(run=compare, needs_keras=False)


def compare(arguments) -> int:
    check_names("workload", "study", arguments.workload.split(","))
    if arguments.schedules != "all":
        check_schedules(arguments.schedules.split(","))
    with usage_errors(ImportError):
        for package in ("matplotlib", "tensorboard"):
            require(package, "compare")
    arguments.load_keras()
    from keras_lrsched import schedules
    from keras_lrsched.study import report, workloads
    from keras_lrsched.study.compare import plan

    labels = schedules.names() if arguments.schedules == "all" else arguments.schedules.split(",")
    with usage_errors(ValueError, OSError, ImportError):
        chosen = [workloads.load(name, arguments.data_dir) for name in arguments.workload.split(",")]
        jobs = plan(chosen, labels, arguments.seeds, arguments.budget, arguments.learning_rate, arguments.warmup)
        folder = report.new_folder(arguments.out, replace=arguments.force)

    runs: list = []
    command = shlex.join(["keras-lrsched", *arguments.words])
    journal = report.Journal(folder, jobs, command)

    def finished(run):
        runs.append(run)
        journal.add(runs)

    try:
        with _progress() as progress:
            code = _until_interrupted(lambda watch: _run(chosen, jobs, arguments.evaluations, finished, progress, watch))
    finally:  # also after an error in one of the runs
        with silent_stderr():  # the event files are written by TensorFlow's libraries
            report.write(runs, folder, len(jobs), command)
    for heading, conditions, (header, *rows) in report.tables(runs):
        show(f"{heading}. {conditions}", header, rows)
    print(f"{len(runs)} of {len(jobs)} runs. Tables, curves and pictures: {folder}/")
    return code


def _run(workloads, jobs, evaluations, finished, progress, watch):
    """Trains all jobs, and calls `finished` with each run."""
    import keras

    from keras_lrsched.study.compare import Trainer

    for workload in workloads:
        mine = [job for job in jobs if job.workload is workload]
        task = progress.add_task(workload.name, total=sum(job.budget for job in mine), now="building the model")
        trainer = Trainer(workload)

        def after_batch(batch, logs, task=task):
            progress.advance(task)
            watch.raise_if_requested()

        for job in mine:
            progress.update(task, now=f"{job.label}, {job.budget} updates, seed {job.seed}")
            advance = keras.callbacks.LambdaCallback(on_train_batch_end=after_batch)
            finished(trainer.run(job, evaluations, callbacks=[advance]))
        progress.update(task, now="")


def _until_interrupted(work):
    """Calls `work(watch)`, which Ctrl-C or SIGTERM ends at the end of a batch: the exit code, as a shell gives it."""
    from keras_lrsched._core import interrupts

    try:
        with interrupts.Watch() as watch:
            work(watch)
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        return end.code
    return 0


def _progress():
    """On stderr, since stdout is for results."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
        console=Console(stderr=True),
    )
