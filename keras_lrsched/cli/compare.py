"""`keras-lrsched compare`: real models under several schedules."""

import shlex

from rich.console import Console

from keras_lrsched.cli.support import list_of, positive, require, share, silent_stderr, usage_errors


def add(commands):
    command = commands.add_parser("compare", help="train real models under several schedules, and see who wins")
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
    command.set_defaults(run=compare)


def compare(arguments) -> int:
    import keras
    from rich.markdown import Markdown

    from keras_lrsched import workloads
    from keras_lrsched.schedules import catalog
    from keras_lrsched.workloads import report
    from keras_lrsched.workloads.compare import Trainer, plan

    labels = catalog.names() if arguments.schedules == "all" else arguments.schedules.split(",")
    with usage_errors(ValueError, OSError, ImportError):
        for package in ("matplotlib", "tensorboard"):
            require(package, "compare")
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
    with silent_stderr():  # the event files are written by TensorFlow's libraries
        report.write(runs, folder, len(jobs), command)
    console.print(Markdown(report.markdown(runs, len(jobs), command)))
    console.print(f"\n{len(runs)} of {len(jobs)} runs. Tables, curves and pictures: {folder}/", highlight=False)
    return 130 if interrupted else 0


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
