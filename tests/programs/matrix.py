"""The table of features: what each supports, by the traits of programs."""

from tests.programs import controllers, loops, observers, optimizers, own_steps, quantized, resuming, sequences, structures
from tests.programs.features import Feature
from tests.programs.program import PROGRAMS, Program

FAMILIES = [module.__name__.rpartition(".")[2] for module in (structures, sequences, own_steps, loops)]
"""The modules that register programs when they are imported, in the order of the matrix."""

NO_LOSS = ("no_loss_in_logs",)
ONE_OPTIMIZER = ("several_optimizers",)
BY_HAND = ("no_fit", "phantom_updates")
LISTS = ("lists_variables",)
"""A recipe that adds trained variables after the program has made its list of them: Keras raises an error."""

_FEATURES = [
    Feature(
        "LearningRateLogger",
        "the learning rates that the optimizer's update step was given; the weights are those without it",
        observers.learning_rate_logger,
        nothing=BY_HAND,
    ),
    Feature(
        "LossRecorder",
        "the loss that was differentiated, the samples of the batch and the learning rate; the weights are those without it",
        observers.loss_recorder,
        observers.refuse("LossRecorder"),
        refused=NO_LOSS,
        nothing=BY_HAND,
    ),
    Feature(
        "GradientNormRecorder",
        "the norm of the gradient that the optimizer was given; the weights are those without it",
        observers.gradient_norm_recorder,
        observers.refuse("GradientNormRecorder"),
        refused=ONE_OPTIMIZER,
        nothing=BY_HAND,
    ),
    Feature(
        "GradientNoiseScale",
        "the paper's formula, with the gradients that the optimizer was given; the weights are those without it",
        observers.gradient_noise_scale,
        observers.refuse("GradientNoiseScale"),
        only=("accumulates", "accumulates_by_hand", "several_optimizers"),
        refused=("accumulates_by_hand", "several_optimizers"),
    ),
    Feature(
        "StabilityMonitor",
        "logits and the norm of the gradient are those of the model; the weights are those without it",
        observers.stability_monitor,
        observers.refuse("StabilityMonitor"),
        only=("arrays",),
        refused=("no_compiled_loss", "no_call"),
        nothing=("no_targets", "stateful", "stateful_random", *BY_HAND),
    ),
    Feature(
        "WeightAveraging",
        "the mean of the weights after each batch; with `keep_average=False` the weights are those without it",
        observers.weight_averaging,
        nothing=BY_HAND,
    ),
    Feature(
        "CriticalBatchSize",
        "the weights are those without it, and the batch size is that of the data",
        observers.critical_batch_size,
        observers.refuse_critical_batch_size,
        refused=("several_optimizers", "no_loss_in_logs", "read_once", "lengths_differ"),
        nothing=(*BY_HAND, "goes_on", "stateful_random", "several_fits", "stateful", "accumulates", "accumulates_by_hand"),
    ),
    Feature("SGD, AdamW", "the weights that Keras' formula leads to", optimizers.in_place_of_keras),
    Feature("Lookahead", "the weights of the method written by hand", optimizers.lookahead, nothing=("stateful_random",)),
    Feature(
        "ScheduleFreeSGD",
        "the weights of the method written by hand",
        optimizers.schedule_free,
        nothing=("stateful_random",),
    ),
    Feature(
        "save, load, go on",
        "a model that was saved, loaded and trained further has the bits of the one that went on",
        optimizers.save_and_load,
        nothing=("not_saved", "several_fits", *BY_HAND, "own_state", "goes_on"),
    ),
    Feature(
        "ScheduleHyperparameter",
        "the weights of a run whose optimizers were constructed with the schedule",
        optimizers.schedule_hyperparameter,
        nothing=BY_HAND,
    ),
    Feature(
        "MagnitudePruning",
        "the zeros and the other weights of the method written by hand",
        controllers.magnitude_pruning,
        controllers.refuse_magnitude_pruning,
        refused=("no_kernels", *ONE_OPTIMIZER),
        nothing=(*BY_HAND, "stateful_random"),
    ),
    Feature(
        "HypergradientLearningRate",
        "the weights of the method written by hand",
        controllers.hypergradient,
        controllers.refuse_hypergradient,
        refused=("accumulates", *ONE_OPTIMIZER),
        nothing=(*BY_HAND, "stateful_random", "accumulates_by_hand"),
    ),
    Feature(
        "LearningRateFinder",
        "all variables of models, optimizers and generators are those before it, and so is the training that follows",
        controllers.learning_rate_finder,
        controllers.refuse_learning_rate_finder,
        refused=(*NO_LOSS, *ONE_OPTIMIZER),
        nothing=(*BY_HAND, "several_models"),
    ),
    Feature(
        "AutoLRS",
        "the weights of a run that has the learning rates that were found from the start",
        controllers.autolrs,
        controllers.refuse_autolrs,
        refused=(*NO_LOSS, *ONE_OPTIMIZER, "read_once"),
        nothing=(*BY_HAND, "goes_on", "several_fits", "stateful_random"),
    ),
    Feature(
        "VolSched",
        "the weights of the rule written by hand, with the losses that were differentiated",
        controllers.volsched,
        controllers.refuse_volsched,
        refused=(*NO_LOSS, *ONE_OPTIMIZER),
        nothing=(*BY_HAND, "several_fits", "stateful_random"),
    ),
    Feature(
        "ScheduledBatches",
        "the weights of a run with the same arrays given to `fit`",
        controllers.scheduled_batches,
        only=("arrays",),
        nothing=("several_fits",),
    ),
    Feature(
        "BatchSizeSchedule",
        "the weights of a run with batches and learning rates cut by hand",
        controllers.batch_size_schedule,
        controllers.refuse_batch_size_schedule,
        refused=ONE_OPTIMIZER,
        only=("arrays",),
        nothing=("several_fits", "stateful", "stateful_random"),
    ),
    Feature(
        "TrainingState",
        "a killed run, started again, has the bits of one that was not",
        resuming.killed_and_resumed,
        resuming.refuse_another_model,
        refused=("several_models",),
        warned=tuple(resuming.UNSAVED),
        nothing=BY_HAND,
    ),
    *(
        Feature(
            f"quantize_model, {recipe}",
            "the weights and statistics of a float model whose layers call the product of the recipe directly",
            quantized.weights_match(recipe),
            quantized.refuse,
            refused=("no_form",),
            nothing=("several_models", "stateful_random", *(LISTS if recipe == quantized.STATISTICS else ())),
        )
        for recipe in quantized.FAMILIES
    ),
    Feature(
        "low precision: save, load, go on",
        "a quantized model that was saved, loaded and trained further has the bits of the one that was not saved",
        quantized.saved_and_loaded,
        nothing=("no_form", "several_models", "not_saved", "several_fits", *BY_HAND, "own_state", "goes_on"),
    ),
    Feature(
        "low precision: TrainingState",
        "a killed run of a quantized model, started again, has the bits of one that was not killed",
        quantized.killed_and_resumed,
        nothing=("no_form", "several_models", *LISTS, *resuming.UNSAVED, *BY_HAND),
    ),
]

WHOLE = frozenset(
    (
        *("functional", "sequential_without_input", "subclassed_with_training", "several_outputs", "accumulation", "lora"),
        *("wrapped_optimizer", "own_step", "accumulation_by_hand", "filtered_dataset", "fit_in_a_loop", "train_on_batch"),
        *("eager_loop", "filtered_dataset_without_xla"),
    )
)
"""Programs of which the quick run checks all features."""

HEAVY = frozenset(("bidirectional", "encoder_decoder", "alignment_by_add_loss", "transformer", "vae", "padded_batches"))
"""Programs that the slow tests alone run, but for what is refused: their steps take long where they are not compiled."""

NARROW = frozenset(
    ("LearningRateLogger", "LossRecorder", "GradientNormRecorder", "WeightAveraging", "SGD, AdamW", "TrainingState")
)
"""Features that the quick run checks in all other programs."""

LOW_PRECISION = frozenset(("sequential_without_input", "own_step", "gan", "contrastive", "accumulation", "fit_in_a_loop"))
"""Programs of which the quick run checks a recipe with statistics; of a functional and a subclassed model, all columns."""

FEATURES = {feature.name: feature for feature in _FEATURES}


def support(program: Program, feature: Feature):
    """The result of a feature in a program: `"exact"`, `"warned"`, `"refused"` or `"-"`."""
    return feature.support(program)


def programs():
    """All programs, by family."""
    return sorted(PROGRAMS.values(), key=lambda program: FAMILIES.index(program.family))


def cells(backend="tensorflow"):
    """All pairs of a program and a feature that has something to do there."""
    for program in programs():
        for feature in _FEATURES:
            if backend in program.backends and support(program, feature) != "-":
                yield program, feature


def is_quick(program, feature):
    """Whether the quick run has the cell. It has all that are refused, which cost next to nothing."""
    if support(program, feature) == "refused":
        return True
    if "quantize_model" in feature.name or "low precision" in feature.name:
        return program.name in ("functional", "subclassed_with_training") or (
            program.name in LOW_PRECISION and quantized.STATISTICS in feature.name
        )
    if program.name in WHOLE:
        return True
    return program.name not in HEAVY and feature.name in NARROW


def table():
    """The matrix as lines of cells, the first of which has the names of the features."""
    rows = [["", *FEATURES]]
    rows += [[program.name, *(support(program, feature) for feature in _FEATURES)] for program in programs()]
    return rows
