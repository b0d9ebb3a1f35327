"""Optimizers: a gradient goes in, an update comes out.

Each is a `keras.optimizers.Optimizer` whose state and arithmetic are float32, to be passed to `model.compile`.

    optimizers.get("lion", learning_rate=3e-4)

builds one by its name, with the values of its paper; `optimizers.names()` lists the names. To write an optimizer, derive
from `Optimizer`, from `FusedOptimizer` for one that a compiled kernel updates, from `LossAwareOptimizer` for one with the
loss in its formula, or from `Wrapper` for one around another.
"""

from keras_lrsched._core import registry
from keras_lrsched._core.roles import Role, Roles, roles
from keras_lrsched.optimizers._lookup import get, names
from keras_lrsched.optimizers._loss_aware_optimizer import LossAwareOptimizer
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.fused_optimizer import FusedOptimizer
from keras_lrsched.optimizers.optimizer import Optimizer
from keras_lrsched.optimizers.wrapper import Wrapper

globals().update(registry.import_methods(__name__))
__all__ = registry.public_names(globals())
