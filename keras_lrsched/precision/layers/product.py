"""The layer inside a quantized layer: it multiplies by a rule, and keeps what the rule remembers."""

import keras
from keras import ops

from keras_lrsched.precision.product import matrix

SEEDS_PER_CALL = 64


class RuleProduct(keras.layers.Layer):
    """inputs kernel, by the rule that a recipe has for a place.

    It computes in float32, whatever the dtype of the layer around it. Random numbers come from the seed of the place and
    from a counter of calls.

    Args:
        rule: A `Rule`.
        place: A `Place`.
        owner: The layer around it, which has its kernel already.
    """

    def __init__(self, rule, place, owner):
        super().__init__(dtype="float32", name=f"{owner.name}_product")
        self.rule = rule
        self.place = place
        self.calls = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="calls")
        self.kept = {name: self.add_weight(name=name, **spec) for name, spec in rule.variables(owner).items()}
        self.built = True

    def call(self, inputs, kernel, training=None):
        seed = ops.stack([ops.cast(self.place.seed, "int32"), ops.convert_to_tensor(self.calls) * SEEDS_PER_CALL])
        if training:
            self.calls.assign_add(1)
        outputs = self.rule(matrix(inputs), ops.cast(kernel, "float32"), self.kept, seed, bool(training))
        return ops.reshape(outputs, (*ops.shape(inputs)[:-1], kernel.shape[-1]))
