"""optax 0.2.8."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import (
    COCOB,
    Adafactor,
    AdamW,
    DAdaptAdam,
    Lamb,
    Lars,
    Lion,
    MoMo,
    MoMoAdam,
    Muon,
    Prodigy,
    RectifiedAdam,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    SharpnessAware,
    Sophia,
)

from .problem import deviation
from .runs import optax_run, ours

optax = pytest.importorskip("optax", reason="needs the environment of `make test-peers`")
EXACT = 1e-6
GROWTH = 1e-5  # where the state is d, in float32 here, which grows

# There is no weight decay where optax has another one than the authors. Its LARS divides by ||g + weight_decay w||, the
# paper by ||g|| + weight_decay ||w||. Its MoMo divides w by 1 + lr weight_decay, but not the step; the authors divide both.
PAIRS = {
    "adamw": (lambda: AdamW(0.02, weight_decay=0.1, epsilon=1e-8), lambda: optax.adamw(0.02, weight_decay=0.1), EXACT),
    "lion": (lambda: Lion(0.01, weight_decay=0.1), lambda: optax.lion(0.01, weight_decay=0.1), EXACT),
    "lamb": (lambda: Lamb(0.02, weight_decay=0.1, epsilon=1e-6), lambda: optax.lamb(0.02, weight_decay=0.1), EXACT),
    "lars": (
        lambda: Lars(0.5, trust_coefficient=0.05, learning_rate_in_momentum=True, epsilon=0.0),
        lambda: optax.lars(0.5, trust_coefficient=0.05),
        EXACT,
    ),
    "lars_nesterov": (
        lambda: Lars(0.5, trust_coefficient=0.05, learning_rate_in_momentum=True, epsilon=0.0, nesterov=True),
        lambda: optax.lars(0.5, trust_coefficient=0.05, nesterov=True),
        EXACT,
    ),
    "radam": (lambda: RectifiedAdam(0.02), lambda: optax.radam(0.02), EXACT),
    "adafactor": (
        lambda: Adafactor(0.05, relative_step=False),
        lambda: optax.adafactor(0.05, min_dim_size_to_factor=2),
        EXACT,
    ),
    "adafactor_momentum": (
        lambda: Adafactor(0.05, relative_step=False, beta_1=0.9),
        lambda: optax.adafactor(0.05, min_dim_size_to_factor=2, momentum=0.9, dtype_momentum="float64"),
        EXACT,
    ),
    "prodigy": (
        lambda: Prodigy(d0=1e-3, weight_decay=0.1, bias_correction=True),
        lambda: optax.contrib.prodigy(estim_lr0=1e-3, weight_decay=0.1),
        GROWTH,
    ),
    "dadapt_adamw": (
        lambda: DAdaptAdam(d0=1e-3, weight_decay=0.1, decoupled_weight_decay=True, bias_correction=True),
        lambda: optax.contrib.dadapt_adamw(estim_lr0=1e-3, weight_decay=0.1),
        GROWTH,
    ),
    "schedule_free_sgd": (
        lambda: ScheduleFreeSGD(0.1, weight_decay=0.1),
        lambda: optax.contrib.schedule_free_sgd(0.1, weight_decay=0.1),
        EXACT,
    ),
    "schedule_free_adamw": (
        lambda: ScheduleFreeAdamW(0.05, weight_decay=0.1),
        lambda: optax.contrib.schedule_free_adamw(0.05, weight_decay=0.1),
        EXACT,
    ),
    "momo": (lambda: MoMo(0.3), lambda: optax.contrib.momo(0.3), EXACT),
    "momo_bound": (
        lambda: MoMo(0.3, lb=-10.0, use_fstar=True),
        lambda: optax.contrib.momo(0.3, lower_bound=-10.0, adapt_lower_bound=True),
        EXACT,
    ),
    "momo_adam": (lambda: MoMoAdam(0.1), lambda: optax.contrib.momo_adam(0.1), EXACT),
    "momo_adam_bound": (
        lambda: MoMoAdam(0.1, lb=-10.0, use_fstar=True),
        lambda: optax.contrib.momo_adam(0.1, lower_bound=-10.0, adapt_lower_bound=True),
        EXACT,
    ),
    "cocob": (lambda: COCOB(alpha=10.0), lambda: optax.contrib.cocob(alpha=10.0), EXACT),
}


@pytest.mark.parametrize("name", PAIRS)
def test_optax(name):
    mine, theirs, tolerance = PAIRS[name]
    assert deviation(ours(mine()), optax_run(theirs(), takes_loss="momo" in name)) < tolerance


def test_muon():
    """Without Nesterov momentum, into which optax takes a gradient by another weight in the first updates."""
    mine = ours(Muon.original(0.02, nesterov=False, momentum=0.9), variables=("kernel",))
    theirs = optax_run(optax.contrib.muon(0.02, beta=0.9, nesterov=False), ("kernel",))
    assert deviation(mine, theirs) < EXACT


@pytest.mark.filterwarnings("ignore:Sophia has no estimate")  # before the first update, as in optax
def test_sophia():
    """With estimates given, and without momentum, which optax corrects for its start and the authors do not."""
    import jax

    optimizer = Sophia(0.02, beta_1=0.0, rho=0.5, weight_decay=0.1, estimator="hutchinson")
    estimates = []

    def before(t):
        estimates[:] = [ops.abs(variable) for variable in optimizer._trainable_variables]

    def after(t):
        if t % 10 == 1:
            optimizer.update_hessian(estimates)

    size = optax.GradientTransformation(lambda params: (), lambda grads, state, params: (jax.tree.map(abs, params), state))
    theirs = optax.contrib.sophia(0.02, b1=0.0, gamma=0.5, weight_decay=0.1, hessian_diagonal_fn=size)
    assert deviation(ours(optimizer, before=before, after=after), optax_run(theirs)) < EXACT


def test_sharpness_aware():
    """A linear layer on new data in each update; ours trains a model, so in float32."""
    import jax

    data = np.random.default_rng(0).normal(size=(50, 8, 6 + 4))
    layer = keras.layers.Dense(4)
    model = SharpnessAware(keras.Sequential([keras.Input((6,)), layer]), rho=0.3)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
    weights = [np.array(value, "float64") for value in layer.get_weights()]
    before = weights[0]
    perturb = optax.chain(optax.contrib.normalize(), optax.sgd(0.3))
    peer = optax.contrib.sam(optax.sgd(0.1, momentum=0.9), perturb)
    gradient = jax.jit(jax.grad(lambda w, x, y: ((x @ w[0] + w[1] - y) ** 2).mean()))
    state = peer.init(weights)
    for batch in data:
        x, y = batch[:, :6], batch[:, 6:]
        model.train_on_batch(x, y)
        for _ in range(2):  # up, and down
            updates, state = peer.update(gradient(weights, x, y), state, weights)
            weights = optax.apply_updates(weights, updates)
        way = np.abs(weights[0] - before).max()
        for mine, theirs in zip(layer.get_weights(), weights, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5 * way)
