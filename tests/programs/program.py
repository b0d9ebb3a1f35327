"""A program: the structure of a training as real projects have it, made afresh from a seed each time."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras.src.utils.naming import reset_uids

EVERY = ("tensorflow", "jax", "torch")


@dataclasses.dataclass
class How:
    """The parts of a program that a feature decides: the optimizer, and whether its steps are compiled."""

    optimizer: Callable[..., keras.optimizers.Optimizer]
    """Makes a new optimizer, given the arguments that the program adds."""
    mode: dict
    """Arguments of `compile`."""

    @property
    def xla_mode(self):
        """The same for a program whose steps are compiled by XLA, where they are compiled at all."""
        can = keras.backend.backend() != "torch"
        return {"jit_compile": can} if "jit_compile" in self.mode else self.mode


class Run:
    """A compiled model with its data, and how a script trains it.

    Args:
        model: The model; a script that makes several adds them to `models`.
        x: The data, and all further arguments of `fit`, but `callbacks`.
        callbacks: Callbacks that the script has of its own.
        script: A function of the run and of callbacks, for a script that is more than one `fit`.
    """

    def __init__(self, model, x=None, callbacks=(), script=None, **options):
        self.models = [] if model is None else [model]
        self.options = {"x": x, "epochs": 2, "shuffle": False, "verbose": 0, **options}
        if hasattr(x, "shape") or isinstance(x, (dict, tuple, list)):
            self.options.setdefault("batch_size", 4)
        self.callbacks = list(callbacks)
        self._script = script or Run.fit
        self.history = None

    @property
    def model(self):
        return self.models[-1]

    def train(self, callbacks=()):
        """Runs the script; its own callbacks come first."""
        self._script(self, [*self.callbacks, *callbacks])
        return self

    def fit(self, callbacks, **options):
        self.history = self.model.fit(**{**self.options, **options}, callbacks=callbacks)


@dataclasses.dataclass(frozen=True)
class Program:
    """A structure.

    Attributes:
        name: Of the function that makes it.
        make: The function, given a `How`.
        backends: Those that it runs on.
        optimizer: `"sgd"` or `"adamw"`.
        traits: What it has that features may have to do with; see `TRAITS`.
        optimizers: Paths of its optimizers, from the model on.
        rtol: How far results of the compiled and of the eager step may differ.
    """

    name: str
    make: Callable[[How], Run]
    description: str
    family: str
    backends: tuple[str, ...] = ("tensorflow",)
    optimizer: str = "sgd"
    traits: frozenset[str] = frozenset()
    optimizers: tuple[str, ...] = ("optimizer",)
    rtol: float = 2e-4

    def __call__(self, how, seed=1):
        """A new run, with the names and the random numbers that a new process has."""
        reset_uids()
        keras.utils.set_random_seed(seed)
        return self.make(how)

    def has(self, *traits):
        return any(trait in self.traits for trait in traits)


TRAITS = {
    "own_train_step": "trains by a `train_step` of its own",
    "several_optimizers": "has optimizers of its own beside or in place of `model.optimizer`",
    "no_loss_in_logs": "its logs have no `loss`",
    "no_compiled_loss": "it is compiled without a loss; its step has one",
    "no_call": "its model has no `call`",
    "unbuilt": "its model gets its weights from the first batch",
    "stateful": "a layer has a state that goes on from batch to batch",
    "accumulates": "its optimizer accumulates gradients over two batches",
    "accumulates_by_hand": "its step applies gradients at every second batch",
    "unknown_length": "the number of its batches is not known",
    "arrays": "its data are arrays",
    "goes_on": "its data go on from epoch to epoch, in an order of their own",
    "phantom_updates": "Keras' own optimizers count a step without data at the end of each of its epochs",
    "shuffled_anew": "its data are shuffled anew for each epoch by `tf.data`",
    "noise_in_step": "its step draws random numbers of TensorFlow, not of `keras.random`",
    "read_once": "its data are a generator, which can be read once",
    "stateful_random": "draws from a generator of TensorFlow",
    "several_fits": "calls `fit` more than once",
    "several_models": "makes more than one model",
    "no_fit": "never calls `fit`",
    "copies_callbacks": "each of its `fit`s gets copies of the callbacks",
    "low_precision": "computes in 16 bits",
    "loss_scale": "its optimizer is inside of a `LossScaleOptimizer`",
    "wrapped": "its optimizer is inside of another one",
    "not_saved": "Keras cannot save and load its model so that it goes on as it would have",
    "own_state": "an object of the script has a state that Keras does not track",
    "no_targets": "its data are inputs alone",
    "no_kernels": "it trains no kernel",
    "lists_variables": "lists the trainable variables of its model before training, or copies the list of its weights",
    "lengths_differ": "its batches are padded to lengths of their own",
    "no_form": "has a layer without a quantized form, or no layer with a product",
    "makes_datasets": "its `fit` makes a `tf.data.Dataset` of what it is given",
    "part_trained": "its step trains a part of the trainable variables",
}

PROGRAMS: dict[str, Program] = {}


def program(*traits, registry=PROGRAMS, **settings) -> Any:
    """Registers a function that makes a run, under its name."""
    unknown = set(traits) - set(TRAITS)
    if unknown:
        raise ValueError(f"There is no such trait. Received: {sorted(unknown)}")

    def register(make):
        family = make.__module__.rpartition(".")[2]
        description = " ".join(make.__doc__.split()).rstrip(".")
        registry[make.__name__] = Program(make.__name__, make, description, family, traits=frozenset(traits), **settings)
        return make

    return register
