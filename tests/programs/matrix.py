"""The table of features: what each supports, by the traits of programs."""

from tests.programs import controllers, loops, observers, optimizers, own_steps, resuming, sequences, structures
from tests.programs.features import Feature
from tests.programs.program import PROGRAMS, Program

FAMILIES = (structures, sequences, own_steps, loops)
"""The modules that register programs when they are imported."""

NO_LOSS = ("no_loss_in_logs",)
ONE_OPTIMIZER = ("several_optimizers",)
BY_HAND = ("no_fit",)

_FEATURES = [
    Feature("LearningRateLogger", observers.learning_rate_logger, nothing=BY_HAND),
    Feature("LossRecorder", observers.loss_recorder, observers.refuse("LossRecorder"), refused=NO_LOSS, nothing=BY_HAND),
    Feature(
        "GradientNormRecorder",
        observers.gradient_norm_recorder,
        observers.refuse("GradientNormRecorder"),
        refused=ONE_OPTIMIZER,
        nothing=BY_HAND,
    ),
    Feature(
        "GradientNoiseScale",
        observers.gradient_noise_scale,
        observers.refuse("GradientNoiseScale"),
        only=("accumulates", "accumulates_by_hand", "several_optimizers"),
        refused=("accumulates_by_hand", "several_optimizers"),
    ),
    Feature(
        "StabilityMonitor",
        observers.stability_monitor,
        observers.refuse("StabilityMonitor"),
        only=("arrays",),
        refused=("no_compiled_loss", "no_call"),
        nothing=("no_targets", "stateful"),
    ),
    Feature("WeightAveraging", observers.weight_averaging, nothing=BY_HAND),
    Feature(
        "CriticalBatchSize",
        observers.critical_batch_size,
        observers.refuse_critical_batch_size,
        refused=("several_optimizers", "no_loss_in_logs", "goes_on"),
        nothing=(*BY_HAND, "several_fits", "stateful", "accumulates", "accumulates_by_hand"),
    ),
    Feature("SGD, AdamW", optimizers.in_place_of_keras),
    Feature("Lookahead", optimizers.lookahead),
    Feature("ScheduleFreeSGD", optimizers.schedule_free),
    Feature("save, load, go on", optimizers.save_and_load, nothing=("not_saved", "several_fits", *BY_HAND, "own_state")),
    Feature("ScheduleHyperparameter", optimizers.schedule_hyperparameter, nothing=BY_HAND),
    Feature(
        "MagnitudePruning",
        controllers.magnitude_pruning,
        controllers.refuse_magnitude_pruning,
        refused=("no_kernels", *ONE_OPTIMIZER),
        nothing=(*BY_HAND, "stateful_random"),
    ),
    Feature(
        "HypergradientLearningRate",
        controllers.hypergradient,
        controllers.refuse_hypergradient,
        refused=("accumulates", *ONE_OPTIMIZER),
        nothing=(*BY_HAND, "stateful_random", "accumulates_by_hand"),
    ),
    Feature(
        "LearningRateFinder",
        controllers.learning_rate_finder,
        controllers.refuse_learning_rate_finder,
        refused=(*NO_LOSS, *ONE_OPTIMIZER),
        nothing=(*BY_HAND, "several_models"),
    ),
    Feature(
        "AutoLRS",
        controllers.autolrs,
        controllers.refuse_autolrs,
        refused=(*NO_LOSS, *ONE_OPTIMIZER),
        nothing=(*BY_HAND, "several_fits", "stateful_random"),
    ),
    Feature(
        "VolSched",
        controllers.volsched,
        controllers.refuse_volsched,
        refused=(*NO_LOSS, *ONE_OPTIMIZER),
        nothing=(*BY_HAND, "several_fits", "stateful_random"),
    ),
    Feature("ScheduledBatches", controllers.scheduled_batches, only=("arrays",), nothing=("several_fits",)),
    Feature(
        "BatchSizeSchedule",
        controllers.batch_size_schedule,
        controllers.refuse_batch_size_schedule,
        refused=ONE_OPTIMIZER,
        only=("arrays",),
        nothing=("several_fits", "stateful", "stateful_random"),
    ),
    Feature("TrainingState", resuming.killed_and_resumed, nothing=BY_HAND),
]

FEATURES = {feature.name: feature for feature in _FEATURES}


def support(program: Program, feature: Feature):
    """What a feature does in a program: `"exact"`, `"refused"` or `"-"`."""
    return feature.support(program)


def cells(backend="tensorflow"):
    """All pairs of a program and a feature that has something to do there."""
    for program in PROGRAMS.values():
        for feature in _FEATURES:
            if backend in program.backends and support(program, feature) != "-":
                yield program, feature


def table():
    """The matrix as lines of cells, the first of which has the names of the features."""
    rows = [["", *FEATURES]]
    rows += [[program.name, *(support(program, feature) for feature in _FEATURES)] for program in PROGRAMS.values()]
    return rows
