"""A learning rate for each layer, by the paths of its variables."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras

from keras_lrsched._core import keras_private, path_rules
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import Roles, deferred
from keras_lrsched._core.types import FindRoles, Multipliers, Variable
from keras_lrsched.optimizers import multipliers as rules
from keras_lrsched.optimizers.multipliers import Layers, Shapes
from keras_lrsched.optimizers.optimizer import Optimizer
from keras_lrsched.optimizers.wrapper import OptimizerLike, Pairs, Wrapper

HAVE_OWN_WEIGHTS = keras_private.existing(keras.optimizers, "Ftrl", "ScheduleFreeAdamW")
"""Their state determines the weights, so that a scaled update would be undone by the next one."""


@register(
    "layerwise_learning_rate",
    title="AdamW with a learning rate for each layer",
    kind="wrapper",
    options={"epsilon": 1e-8},
)
class LayerwiseLearningRate(Wrapper):
    """A learning rate for each variable around any optimizer: multiplied by the number that belongs to its path.

        w = w + multiplier (update(w) - w)

    This is how it is done around Keras' own optimizers, after whatever the update is: clipped, a sign, with a step size of
    its own. Around an optimizer of this package the multiplier enters the formula as learning rate, times the optimizer's
    `learning_rate_multipliers`. In both, weight decay that is proportional to the learning rate, as Keras' is, is multiplied
    with it; `weight_decay_multipliers` make up for that. A variable that no pattern is found in keeps its rate. There is no
    state beside that of the inner optimizer, which has the learning rate, the counter of updates and all options.

    Other constructors make the patterns: `blockwise`, `lora_plus`, `layer_decay`, `discriminative`, `mup`; for two models
    that train each other, `two_time_scale`.

    Args:
        optimizer: The inner optimizer, of Keras or of this package; also its name or config as for `keras.optimizers.get`.
        multipliers: A dictionary from regular expressions to numbers of at least 0. The first that is found in the path of a
            variable, such as `"dense_1/kernel"`, counts. `"role:"` and a kind or block of `Role`, such as
            `"role:embedding"`, finds all variables of this role. Defaults to `None`, for none.
        weight_decay_multipliers: The same for the weight decay, which has the multiplier of the learning rate too. Only
            around optimizers of this package. Defaults to `None`, for none.
        name: As in Keras.
        roles: The table of roles that `roles(model)` returns, corrected, for rules such as `"role:embedding"`. Defaults to
            `None`: each variable has its role from its layer.

    Raises:
        ValueError: If an argument is out of its range. If the inner optimizer is a wrapper (`Lookahead` and
            `LossScaleOptimizer` belong around this one), or one of Keras' whose update cannot be scaled: `Ftrl` and
            `ScheduleFreeAdamW`, which keep the weights in their state, or any with `use_ema`. When it is built, if a regular
            expression is found in no path; the message lists the paths.

    Example:

    >>> kernel, bias = keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")
    >>> optimizer = LayerwiseLearningRate(keras.optimizers.SGD(0.125), {"bias": 2.0})
    >>> optimizer.apply([keras.ops.array([1.0])] * 2, [kernel, bias])
    >>> kernel.numpy(), bias.numpy()
    (array([0.875], dtype=float32), array([0.75], dtype=float32))
    """

    def __init__(
        self,
        optimizer: OptimizerLike,
        multipliers: Multipliers = None,
        weight_decay_multipliers: Multipliers = None,
        name: str | None = None,
        roles: Roles | None = None,
    ) -> None:
        super().__init__(optimizer, name)
        self._roles = path_rules.table(roles)
        self.multipliers = path_rules.multipliers("multipliers", multipliers)
        self.weight_decay_multipliers = path_rules.multipliers("weight_decay_multipliers", weight_decay_multipliers)
        self._is_ours = isinstance(self.inner_optimizer, Optimizer)
        if not self._is_ours:
            self._refuse(optimizer)
        elif not self.inner_optimizer.takes_multipliers:
            raise ValueError(
                "LayerwiseLearningRate needs an optimizer whose learning rate is the length of its steps. "
                f"Received: optimizer={optimizer!r}"
            )

    def roles(self, model: keras.Model | None = None) -> Roles:
        """Return the table of roles that the multipliers go by, see `Optimizer.roles`; a new one is the inner one's, too."""
        if model is not None or self._roles is None:
            table = super().roles(model)
            self._roles = self._roles if model is None else table
            return table
        return self._roles

    # Ready-made patterns

    @classmethod
    def blockwise(
        cls,
        optimizer: OptimizerLike,
        norm: float | None = 1.0,
        value_output: float | None = 4.0,
        feed_forward: float | None = 6.0,
        query_key: float | None = 8.0,
        embedding: float | None = 10.0,
        patterns: Mapping[str, str] | None = None,
        name: str | None = None,
        roles: Roles | None = None,
    ) -> Self:
        """Blockwise learning rates of Transformers (arXiv:2502.19002): 1 for norms, 4 for value and output, 6 for the
        feed-forward blocks, 8 for query and key, 10 for embeddings; what is none of these, such as the head, has 1.

        They were tuned for AdamW, Adam-mini and Lion. `None` is for a kind that the model does not have; `patterns` are as
        for `keras_lrsched.optimizers.multipliers.blockwise`. Blocks are found by the layers, or in the table `roles`. The
        authors' code was read, not run.
        """
        rates = rules.blockwise(norm, value_output, feed_forward, query_key, embedding, patterns)
        return cls(optimizer, rates, name=name, roles=roles)

    @classmethod
    def lora_plus(cls, optimizer: OptimizerLike, ratio: float = 16.0, name: str | None = None) -> Self:
        """LoRA+ (arXiv:2402.12354), for layers with `enable_lora`: the factor B learns `ratio` times faster than A."""
        return cls(optimizer, rules.lora_plus(ratio), name=name)

    @classmethod
    def layer_decay(cls, optimizer: OptimizerLike, decay: float, layers: Layers, name: str | None = None) -> Self:
        """Each of `layers` (patterns from input to output, or a model) learns `decay` times as fast as the next one."""
        return cls(optimizer, rules.layer_decay(decay, layers), name=name)

    @classmethod
    def discriminative(cls, optimizer: OptimizerLike, layers: Layers, factor: float = 2.6, name: str | None = None) -> Self:
        """ULMFiT (arXiv:1801.06146): each of `layers`, as for `layer_decay`, learns `factor` times slower than the next."""
        return cls(optimizer, rules.discriminative(layers, factor), name=name)

    @classmethod
    def mup(
        cls,
        optimizer: OptimizerLike,
        base: Shapes,
        target: Shapes,
        rule: str = "adam",
        weight_decay_power: float = 1.0,
        name: str | None = None,
    ) -> Self:
        """muP (arXiv:2203.03466): the learning rate that was best for the narrow model `base`, used for the wide `target`.

        See `keras_lrsched.optimizers.multipliers.mup` for the table. Both are models with the same paths, or dictionaries
        from path to shape. `rule` is `"adam"` for all methods whose update does not grow with the gradient, or `"sgd"`.
        Under Adam, the weight decay of matrices is multiplied by the width to the power `weight_decay_power`: 1 keeps its
        product with the learning rate, as microsoft/mup does; 0 is for a decay without the learning rate in it; 0.5 is the
        rule of arXiv:2510.15262, which decays no vectors: exclude these. The rest of muP is up to the model: initial weights
        by fan-in, logits divided by the ratio of widths, attention scaled by 1/d in place of 1/sqrt(d).
        """
        rates, decays = rules.mup(base, target, rule, weight_decay_power)
        has_decay = keras.optimizers.get(optimizer).weight_decay
        return cls(optimizer, rates, decays if has_decay else None, name=name)

    @classmethod
    def two_time_scale(cls, optimizer: keras.optimizers.Optimizer, ratio: float) -> tuple[keras.optimizers.Optimizer, Self]:
        """TTUR (arXiv:1706.08500): an optimizer for a generator, and another that learns `ratio` times faster for the
        discriminator. The first is `optimizer`; the second is made from its config."""
        copy = type(optimizer).from_config(optimizer.get_config())
        return optimizer, cls(copy, {"": ratio})

    # The update

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:
            return
        find_roles = deferred(variables, self._roles)
        rates = self._resolve("multipliers", variables, find_roles)
        decays = self._resolve("weight_decay_multipliers", variables, find_roles)
        super().build(variables)
        if self._is_ours:
            inner = self.inner_optimizer
            inner._multipliers = [own * ours for own, ours in zip(inner._multipliers, rates, strict=True)]
            inner._decay_multipliers = decays
        self._scaled = {} if self._is_ours else {i: rate for i, rate in enumerate(rates) if rate != 1}

    def before_update(self, pairs: Pairs) -> Any:
        return {i: self.value_of(variable, i) for variable, i in pairs if i in self._scaled}

    def after_update(self, pairs: Pairs, before: Any) -> None:
        for variable, i in pairs:
            if i in self._scaled:
                old = before[i]
                self.set_value(variable, i, old + self._scaled[i] * (self.value_of(variable, i) - old))

    def _resolve(self, name: str, variables: Sequence[Variable], find_roles: FindRoles) -> list[float]:
        numbers = getattr(self, name)
        return [numbers.get(rule, 1.0) for rule in path_rules.first_match(name, numbers, variables, find_roles)]

    def _refuse(self, optimizer: OptimizerLike) -> None:
        if isinstance(self.inner_optimizer, Wrapper):
            raise ValueError(f"LayerwiseLearningRate belongs inside other wrappers. Received: optimizer={optimizer!r}")
        for each in getattr(self.inner_optimizer, "optimizers", [self.inner_optimizer]):
            if isinstance(each, HAVE_OWN_WEIGHTS) or each.use_ema:
                raise ValueError(
                    "LayerwiseLearningRate cannot scale updates of an optimizer that keeps weights in its state. "
                    f"Received: optimizer={optimizer!r}"
                )
            if each.weight_decay and self.weight_decay_multipliers:
                raise ValueError(
                    "`weight_decay_multipliers` need an optimizer of keras_lrsched, such as its AdamW. "
                    f"Received: optimizer={optimizer!r}, weight_decay_multipliers={self.weight_decay_multipliers!r}"
                )

    def get_config(self) -> dict[str, Any]:
        names = ("multipliers", "weight_decay_multipliers")
        roles = None if self._roles is None else keras.saving.serialize_keras_object(self._roles)
        return {**super().get_config(), **{name: dict(getattr(self, name)) for name in names}, "roles": roles}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        roles = keras.saving.deserialize_keras_object(config.get("roles"), custom_objects=custom_objects)
        return super().from_config({**config, "roles": roles}, custom_objects)
