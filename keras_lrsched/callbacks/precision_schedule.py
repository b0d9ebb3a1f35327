"""Low precision for most of a training, and more when it is needed: one recipe after another."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks._probe import Probe, number_of_samples
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.precision.model import prepare_recipe, quantize_model, quantized_layers, switch_recipe
from keras_lrsched.precision.recipe import Recipe, get_recipe
from keras_lrsched.precision.recipes import ForwardOnly


@register(
    title="Phases of precision",
    paper="arXiv:2502.11458",
    checked="memory",
    deviations=(
        "known from the abstract and secondary sources; length of the last stage unverified; the ratio is that of "
        "arXiv:2505.19115, where the standard deviations of single entries are compared"
    ),
    kind="controller",
)
class PrecisionSchedule(Controller):
    """Training in phases of precision, by one recipe after another.

    Phases end at given steps, or when gradients drown in the noise of their quantization: at each check, with g the gradient
    of the loss on a sample with exact backward products, and g_q that with those of the recipe,

        ratio = |g| / |g_q - g|

    and the next phase begins when the ratio is below a threshold. Two checks cost four passes over the sample, and compiling
    the first time.

    A model that is not quantized yet is converted when `fit` begins, see `quantize_model`; after `fit` it keeps the last
    recipe. Each switch makes the compiled step anew.

    Args:
        recipes: The recipes of the phases, at least two: each a `Recipe`, its name, or `None` for the precision of the dtype
            policy.
        boundaries: The steps, increasing positive integers, at which the second recipe and those after it take over.
            Steps are batches trained, over all `fit`s. Defaults to `None`: at the threshold.
        noise_ratio: The threshold. Defaults to `None`; sqrt(3) is that of the paper.
        sample: For a threshold: a tuple of inputs and targets.
        every: Steps between checks. Defaults to `100`.

    Attributes:
        phase: The index of the present recipe.
        history: A list of dictionaries, one a check: `step`, `phase`, `ratio`.

    Raises:
        ValueError: At construction, if an argument is out of its range, or if not just one of `boundaries` and `noise_ratio`
            is given; when `fit` begins, as `Controller` (but for the learning rate) and `quantize_model`; at a check, as
            `ForwardOnly`.

    Reference:
        A stage in the target precision at the end: Zhou et al., arXiv:2502.11458. The ratio: Chmiel et al., FP4 All the Way,
        arXiv:2505.19115; there the standard deviations of single numbers are compared, over the model, which is the same.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32), keras.layers.Dense(1)])
    >>> model.compile("adam", loss="mse")
    >>> schedule = PrecisionSchedule(["fp4_target_precision", None], boundaries=[6])
    >>> history = model.fit(np.ones((32, 64)), np.ones((32, 1)), batch_size=4, verbose=0, callbacks=[schedule])
    >>> schedule.phase, model.layers[0].recipe is None
    (1, True)
    """

    sets_learning_rate = False
    works_on_replicas = False
    saved = ("phase", "history")

    def __init__(
        self,
        recipes: Sequence[Recipe | str | None],
        boundaries: Sequence[int] | None = None,
        noise_ratio: float | None = None,
        sample: tuple | None = None,
        every: int = 100,
    ) -> None:
        super().__init__(monitor=())
        self.recipes = [None if recipe is None else get_recipe(recipe) for recipe in recipes]
        if len(self.recipes) < 2:
            raise ValueError(f"`recipes` must have at least two phases. Received: recipes={recipes}")
        if (boundaries is None) == (noise_ratio is None):
            raise ValueError(
                "Just one of `boundaries` and `noise_ratio` must be given. "
                f"Received: boundaries={boundaries}, noise_ratio={noise_ratio}"
            )
        self.boundaries = None
        if boundaries is not None:
            self.boundaries = validation.increasing("boundaries", boundaries, validation.positive_int)
            if len(self.boundaries) != len(self.recipes) - 1:
                raise ValueError(
                    f"`boundaries` must be one fewer than `recipes`. Received: {len(self.boundaries)} boundaries, "
                    f"{len(self.recipes)} recipes"
                )
        self.noise_ratio = None if noise_ratio is None else validation.positive_float("noise_ratio", noise_ratio)
        if noise_ratio is not None and (sample is None or not number_of_samples(sample)):
            raise ValueError(f"`noise_ratio` needs a `sample`. Received: sample={sample}")
        self.sample = sample
        self.every = validation.positive_int("every", every)
        self.phase = 0
        self.history: list[dict] = []
        self._used: int | None = None
        self._probes: dict = {}

    @classmethod
    def with_target_stage(cls, recipe: Recipe | str, total_steps: int, fraction: float = 0.075) -> "PrecisionSchedule":
        """A recipe, and for the last share of the steps the precision of the dtype policy.

        Args:
            recipe: A `Recipe` or its name.
            total_steps: The steps of the training.
            fraction: The share of the last stage. Defaults to `0.075`; the paper's own is unverified.

        Raises:
            ValueError: If `fraction` is not between 0 and 1.
        """
        validation.inner_fraction("fraction", fraction)
        steps = validation.positive_int("total_steps", total_steps)
        return cls([recipe, None], [max(1, steps - math.ceil(fraction * steps))])

    def begin(self) -> None:
        self._used = None
        self._probes = {}
        if not quantized_layers(self.model):
            quantize_model(self.model, next(recipe for recipe in self.recipes if recipe is not None))
        for recipe in self.recipes:
            prepare_recipe(self.model, recipe)

    def before_update(self) -> None:
        if self.boundaries is not None:
            self.phase = int(np.searchsorted(self.boundaries, self.step, side="right"))
        if self._used != self.phase:
            switch_recipe(self.model, self.recipes[self.phase])
            self._used = self.phase

    def after_update(self) -> None:
        last = self.phase == len(self.recipes) - 1
        if self.noise_ratio is None or last or self.step % self.every or self.recipes[self.phase] is None:
            return
        ratio = self._ratio(self.recipes[self.phase])
        self.history.append({"step": self.step, "phase": self.phase, "ratio": ratio})
        if ratio < self.noise_ratio:
            self.phase += 1

    def _ratio(self, recipe: Any) -> float:
        exact, written = self._gradient(ForwardOnly(recipe)), self._gradient(recipe)
        norm = math.sqrt(sum(float(np.sum(g.astype("float64") ** 2)) for g in exact))
        pairs = zip(exact, written, strict=True)
        noise = math.sqrt(sum(float(np.sum((g.astype("float64") - q) ** 2)) for g, q in pairs))
        return norm / noise if noise else math.inf

    def _gradient(self, recipe: Any) -> list[np.ndarray]:
        """By the recipe, which a compiled function takes from the layers when it is traced."""
        for layer in quantized_layers(self.model):
            layer.use(recipe, layer.context)
        if recipe not in self._probes:
            self._probes[recipe] = Probe(self.model, self.sample)
        return self._probes[recipe].gradient()
