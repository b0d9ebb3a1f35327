"""Rules that combine with any formula: each against reference runs, each pair against NumPy or refused by name."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched import optimizers
from keras_lrsched.optimizers import (
    COCOB,
    SGD,
    AdaBound,
    AdamW,
    DAdaptSGD,
    GradientGrouping,
    Lion,
    LocalUpdates,
    Lookahead,
    Muon,
    Prodigy,
    RectifiedAdam,
    ScheduleFreeAdamW,
    ScheduleFreeWrapper,
)
from keras_lrsched.schedules import InverseSqrtDecay, LinearDecay
from tests.contract.backends import compiled_update
from tests.contract.optimizer_cases import CASES
from tests.contract.optimizer_problem import RUNS, gradients, variables
from tests.nightly import nightly, some

ADAMW = {"learning_rate": 0.01, "epsilon": 1e-8, "weight_decay": 0.1}
QUINTIC = {"learning_rate": 0.05, "weight_decay": None, "orthogonalize": "quintic"}
REFERENCES = {
    "c_adamw_official": (AdamW, {**ADAMW, "beta_2": 0.95, "epsilon": 1e-10, "cautious": True}),
    "c_lion_official": (
        Lion,
        {"learning_rate": 0.01, "beta_1": 0.95, "beta_2": 0.98, "weight_decay": 0.1, "cautious": True},
    ),
    "c_muon_official_fp64NS": (
        Muon.original,
        {"learning_rate": 0.02, "weight_decay": 0.01, "adjust_lr": "original", "cautious": True},
    ),
    "muonh_nvidia": (Muon.original, {**QUINTIC, "norm_control": "hyperball"}),
    "muon_relative_update_nvidia": (Muon.original, {**QUINTIC, "nesterov": False, "norm_control": "relative"}),
    "muon_radial_brake_nvidia": (
        Muon.original,
        {**QUINTIC, "nesterov": False, "adjust_lr": "match_rms_adamw", "rms_rate": 1.0, "norm_control": "brake"},
    ),
    "cautious_weight_decay_adamw_own": (AdamW, {**ADAMW, "weight_decay": 1.0, "cautious_weight_decay": True}),
    "cautious_weight_decay_lion_own": (
        Lion,
        {"learning_rate": 0.01, "weight_decay": 1.0, "cautious_weight_decay": True},
    ),
    "stableadamw": (AdamW, {**ADAMW, "beta_2": 0.99, "update_clipping": True}),
    "adamc_po": (AdamW, {**ADAMW, "corrected_weight_decay": 0.02}),
    "adamh_own": (AdamW, {**ADAMW, "learning_rate": 0.02, "norm_control": "hyperball"}),
    "nap_sgd_own": (SGD, {"learning_rate": 0.05, "momentum": 0.9, "norm_control": "project"}),
    "nap_sgd_every2_own": (
        SGD,
        {"learning_rate": 0.05, "momentum": 0.9, "norm_control": "project", "norm_control_every": 2},
    ),
}
RATES = {"adamc_po": (0.01, 0.02, 0.015, 0.01, 0.005)}


@pytest.mark.parametrize("run", REFERENCES)
def test_reference_trajectories(run):
    kind, options = REFERENCES[run]
    weights, trajectory = variables(), RUNS[run]["traj"]
    is_transposed = kind == Muon.original
    if is_transposed:
        weights["kernel"] = keras.Variable(ops.transpose(weights["kernel"]), name="kernel")
    optimizer = kind(**options)
    names = {"kernel": "W", "bias": "b"}
    for t, expected in enumerate(trajectory, start=1):
        if run in RATES:
            optimizer.learning_rate = RATES[run][t - 1]
        kernel, bias = gradients(t)
        optimizer.apply([ops.transpose(kernel) if is_transposed else kernel, bias], [*weights.values()])
        for name, variable in weights.items():
            if names[name] in expected:
                value = ops.convert_to_numpy(variable)
                value = value.T if is_transposed and name == "kernel" else value
                np.testing.assert_allclose(value.ravel(), expected[names[name]], rtol=RUNS[run]["meta"]["rtol"], atol=2e-6)


# Each pair, with AdamW in NumPy

SETTINGS = [
    {"cautious": True},
    {"cautious_weight_decay": True},
    {"corrected_weight_decay": 0.2},
    {"update_clipping": True},
    {"update_clipping": "direction"},
    {"norm_control": "hyperball"},
    {"norm_control": "project"},
    {"norm_control": "relative"},
    {"norm_control": "brake"},
    {"gradient_centralization": True},
    {"adaptive_clipping": 0.2},
    {"z_clipping": 2.0},
    {"global_clipnorm": 1.0},
    {"amsgrad": True},
    {"nesterov": True},
]
PAIRS = [{**one, **two} for one, two in itertools.combinations(SETTINGS, 2) if not set(one) & set(two)]
CLIPPINGS = {"adaptive_clipping", "z_clipping", "global_clipnorm"}
WARMUP = 2
RATE, DECAY, BETA_1, BETA_2, EPSILON = 0.1, 0.3, 0.9, 0.8, 1e-8


def is_refused(pair):
    shortened = pair.get("update_clipping") and pair.get("norm_control") in ("hyperball", "relative")
    return bool(shortened) or len(CLIPPINGS & set(pair)) > 1


def norm(x):
    return np.sqrt(np.sum(x**2))


def clipped(g, w, rules, statistics, t):
    """The gradients of all variables after the rules for them."""
    total = norm(np.concatenate([each.ravel() for each in g.values()]))
    if "global_clipnorm" in rules:
        return {name: each * min(1, rules["global_clipnorm"] / total) for name, each in g.items()}
    if "adaptive_clipping" in rules:
        lengths = {"kernel": lambda x: np.sqrt(np.sum(x**2, axis=0, keepdims=True)), "bias": norm}
        limits = {name: rules["adaptive_clipping"] * np.maximum(lengths[name](w[name]), 1e-3) for name in g}
        statistics["clipped"] += sum(np.sum(lengths[name](each) > limits[name]) for name, each in g.items())
        return {name: each * np.minimum(1, limits[name] / lengths[name](each)) for name, each in g.items()}
    if "z_clipping" not in rules:
        return g
    if t <= WARMUP:
        statistics["norms"].append(total)
        statistics["mean"], statistics["variance"] = np.mean(statistics["norms"]), np.var(statistics["norms"])
        return g
    deviation = np.sqrt(statistics["variance"])
    z, seen = (total - statistics["mean"]) / (deviation + 1e-6), total
    if z > rules["z_clipping"]:
        statistics["clipped"] += 1
        seen = statistics["mean"] + rules["z_clipping"] ** 2 / z * deviation
    statistics["mean"] = 0.97 * statistics["mean"] + 0.03 * seen
    statistics["variance"] = 0.97 * statistics["variance"] + 0.03 * (seen - statistics["mean"]) ** 2
    return {name: each * seen / total for name, each in g.items()}


def adamw_with_rules(steps, **rules):
    """The weights after each update, written down from the papers."""
    w = {name: np.array(ops.convert_to_numpy(v), "float64") for name, v in variables().items()}
    radius = norm(w["kernel"])
    m, v, largest = ({name: np.zeros_like(each) for name, each in w.items()} for _ in range(3))
    statistics = {"norms": [], "clipped": 0}
    for t in range(1, steps + 1):
        g = dict(zip(w, (np.array(ops.convert_to_numpy(each), "float64") for each in gradients(t)), strict=True))
        g = clipped(g, w, rules, statistics, t)
        if "gradient_centralization" in rules:
            g["kernel"] = g["kernel"] - g["kernel"].mean(axis=0)
        for name in w:
            m[name] = BETA_1 * m[name] + (1 - BETA_1) * g[name]
            v[name] = BETA_2 * v[name] + (1 - BETA_2) * g[name] ** 2
            largest[name] = np.maximum(largest[name], v[name])
            first = BETA_1 * m[name] + (1 - BETA_1) * g[name] if "nesterov" in rules else m[name]
            second = (largest if "amsgrad" in rules else v)[name] / (1 - BETA_2**t)
            direction = u = RATE * first / (1 - BETA_1**t) / (np.sqrt(second) + EPSILON)
            decay = RATE * DECAY * w[name]
            if "corrected_weight_decay" in rules and name == "kernel":
                decay = decay * RATE / rules["corrected_weight_decay"]
            if "cautious" in rules:
                mask = u * g[name] > 0
                u = u * mask / max(np.mean(mask), 1e-3)
            if "cautious_weight_decay" in rules:
                decay = np.where(direction * w[name] >= 0, decay, 0)
            if "update_clipping" in rules:
                excess = max(1, np.sqrt(np.mean(g[name] ** 2 / np.maximum(second, EPSILON**2))))
                u, decay = u / excess, decay / excess if rules["update_clipping"] is True else decay
            if name == "bias" or "norm_control" not in rules:
                w[name] = w[name] - u - decay
                continue
            match rules["norm_control"]:
                case "hyperball":
                    new = w[name] - RATE * radius * u / norm(u)
                    w[name] = radius * new / norm(new)
                case "project":
                    w[name] = radius * (w[name] - u) / norm(w[name] - u)
                case "relative":
                    w[name] = w[name] - RATE * norm(w[name]) * u / norm(u)
                case "brake":
                    old, new = norm(w[name]), w[name] - u
                    growth = max(norm(new) - old, 0)
                    w[name] = new * (1 - 0.5 * growth / norm(new))
        yield {name: each.copy() for name, each in w.items()}


def ours(**options):
    return AdamW(RATE, weight_decay=DECAY, beta_2=BETA_2, epsilon=EPSILON, **options)


def show(rules):
    return "-".join(f"{name}={value}" for name, value in rules.items())


@pytest.fixture
def short_warmup(monkeypatch):
    monkeypatch.setattr("keras_lrsched.optimizers._update_rules.Z_WARMUP", WARMUP)


@pytest.mark.parametrize("rules", some([{}, *SETTINGS, *PAIRS], first=1 + len(SETTINGS)), ids=show)
def test_each_pair(rules, short_warmup):
    if is_refused(rules):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            ours(**rules)
        assert all(name in str(error.value) for name in rules)
        return
    weights = variables()
    optimizer = ours(**rules)
    for t, expected in enumerate(adamw_with_rules(6, **rules), start=1):
        optimizer.apply(gradients(t), [*weights.values()])
        for name, variable in weights.items():
            np.testing.assert_allclose(ops.convert_to_numpy(variable), expected[name], rtol=2e-5, atol=2e-6)


def test_each_rule_changes_something(short_warmup):
    plain = [*adamw_with_rules(6)][-1]
    for rules in SETTINGS:
        other = [*adamw_with_rules(6, **rules)][-1]
        assert any(np.max(np.abs(other[name] - plain[name])) > 1e-3 for name in plain), rules


GRADIENT_RULES = [each for each in SETTINGS if set(each) & {"corrected_weight_decay", "gradient_centralization", *CLIPPINGS}]


@pytest.mark.parametrize("rules", some([{**GRADIENT_RULES[0], **GRADIENT_RULES[1], "z_clipping": 2.0}, *SETTINGS]), ids=show)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_update(rules, dtype, short_warmup):
    """The kernel itself where a rule is for gradients or weight decay; in its place the formula, where it is for steps."""
    weights = {fused: [*variables(dtype).values()] for fused in ("auto", False)}
    for fused, each in weights.items():
        update = compiled_update(ours(fused=fused, master_weights=False, **rules), each)
        for t in range(1, 7):
            update(gradients(t, dtype))
    for one, other in zip(*weights.values(), strict=True):
        tolerance = 2e-6 if dtype == "float32" else 1e-2
        np.testing.assert_allclose(
            *(np.array(ops.convert_to_numpy(ops.cast(v, "float32"))) for v in (one, other)), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize(
    "rules", [{"cautious": True}, {"norm_control": "project"}, {"amsgrad": True}, {"nesterov": True}], ids=show
)
def test_there_is_no_kernel_for_steps(rules):
    weights = variables()
    with pytest.raises(RuntimeError, match=rf"{next(iter(rules))}.*Received: fused=True"):
        ours(fused=True, **rules).apply(gradients(1), [*weights.values()])


# What they are for


def model_of_layers():
    """A table, a convolution, a depthwise one, a normalization, and an output layer."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, name="convolution")(inputs)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))


def test_norms_that_are_held():
    model = model_of_layers()
    optimizer = AdamW(0.05, norm_control="project", exclude_from_norm_control=["logits"])
    before = {v.path: norm(ops.convert_to_numpy(v)) for v in model.trainable_variables}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        grads = [ops.convert_to_tensor(rng.normal(size=v.shape), "float32") for v in model.trainable_variables]
        optimizer.apply(grads, model.trainable_variables)
    after = {v.path: norm(ops.convert_to_numpy(v)) for v in model.trainable_variables}
    held = {path for path in before if before[path] == pytest.approx(after[path], rel=1e-5)}
    assert held == {"convolution/kernel", "depthwise/kernel"}
    assert sum("radius" in v.name for v in optimizer.variables) == 2


def test_each_expert_has_a_norm_of_its_own():
    layer = keras.layers.EinsumDense("ebi,eio->ebo", (5, 3), name="experts")
    layer.build((2, 5, 4))
    experts = layer.kernel
    lengths = np.sqrt(np.sum(ops.convert_to_numpy(experts) ** 2, axis=(1, 2)))
    optimizer = AdamW(0.5, norm_control="hyperball")
    optimizer.apply([ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 4, 3)), "float32")], [experts])
    np.testing.assert_allclose(np.sqrt(np.sum(ops.convert_to_numpy(experts) ** 2, axis=(1, 2))), lengths, rtol=1e-5)


def test_output_layers_keep_the_plain_decay():
    model = model_of_layers()
    kernels = {v.path: v for v in model.trainable_variables if "kernel" in v.path}
    optimizer = AdamW(0.5, weight_decay=0.1, corrected_weight_decay=1.0)
    before = {path: ops.convert_to_numpy(v).copy() for path, v in kernels.items()}
    optimizer.apply([ops.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
    shares = {path: np.mean(1 - ops.convert_to_numpy(v) / before[path]) for path, v in kernels.items()}
    lowered = {"convolution/kernel": 0.025, "depthwise/kernel": 0.025, "logits/kernel": 0.05}
    assert shares == pytest.approx(lowered, rel=1e-3)


def test_centralization_by_role():
    table = keras.layers.Embedding(5, 3, name="tokens")
    table.build()
    model = model_of_layers()
    weights = [table.embeddings, *model.trainable_variables]
    rng = np.random.default_rng(0)
    optimizer = SGD(1.0, gradient_centralization=True)
    before = {v.path: ops.convert_to_numpy(v).copy() for v in weights}
    optimizer.apply([ops.convert_to_tensor(rng.normal(size=v.shape), "float32") for v in weights], weights)
    moves = {v.path: ops.convert_to_numpy(v) - before[v.path] for v in weights}
    axes = {"convolution/kernel": (0, 1, 2), "depthwise/kernel": (0, 1), "logits/kernel": (0,)}
    for path, move in moves.items():
        mean = np.mean(move, axis=axes.get(path, tuple(range(move.ndim))))
        assert (np.max(np.abs(mean)) < 1e-6) == (path in axes), path


@pytest.mark.parametrize(
    ("rules", "name"), [({"adaptive_clipping": 1.0}, "clipped_units"), ({"z_clipping": 2.0}, "clipped_updates")]
)
def test_counters(rules, name, short_warmup):
    weights, statistics = variables(), {"norms": [], "clipped": 0}
    optimizer = SGD(0.0, **rules)
    for t in range(1, 7):
        optimizer.apply(gradients(t), [*weights.values()])
        values = (
            {key: ops.convert_to_numpy(each) for key, each in zip(weights, tensors, strict=True)}
            for tensors in (gradients(t), weights.values())
        )
        clipped(*values, rules, statistics, t)
    assert 1 < statistics["clipped"] < 20
    assert int(getattr(optimizer, name)) == statistics["clipped"]
    assert any(v is getattr(optimizer, name) for v in optimizer.variables)


def test_counters_stand_still_with_an_update_that_is_left_out(short_warmup):
    weights = [*variables().values()]
    optimizer = SGD(1e-3, z_clipping=2.0, nonfinite="skip")
    for t in range(1, 4):
        optimizer.apply(gradients(t), weights)
    before = [np.array(ops.convert_to_numpy(v)) for v in optimizer.variables]
    optimizer.apply([np.nan * g for g in gradients(4)], weights)
    changed = [v.name for v, old in zip(optimizer.variables, before, strict=True) if np.any(ops.convert_to_numpy(v) != old)]
    assert changed == ["skipped_updates"]


def test_peak_of_a_schedule():
    schedule = LinearDecay(0.05, 10, warmup_target=0.2, warmup_steps=4)
    by_schedule, by_number = ours_at(schedule, True), ours_at(schedule, 0.2)
    histories = []
    for optimizer in (by_schedule, by_number):
        weights = [*variables().values()]
        for t in range(1, 4):
            optimizer.apply(gradients(t), weights)
        histories.append([ops.convert_to_numpy(v) for v in weights])
    for one, other in zip(*histories, strict=True):
        np.testing.assert_array_equal(one, other)
    for rate in (0.1, InverseSqrtDecay(0.1, 10)):
        with pytest.raises(ValueError, match="`corrected_weight_decay` must be the peak"):
            ours_at(rate, True)


def ours_at(rate, corrected):
    return AdamW(rate, weight_decay=0.1, corrected_weight_decay=corrected)


# Bad input


@pytest.mark.parametrize("where", ["build", "fit"])
def test_kernels_of_zeros(where):
    layer = keras.layers.Dense(2, kernel_initializer="zeros", name="flat")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(AdamW(norm_control="hyperball"), "mse")
    ways = {
        "build": lambda: model.optimizer.build(model.trainable_variables),
        "fit": lambda: model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0),
    }
    with pytest.raises(ValueError, match=r"kernels of zeros, .*kernel"):
        ways[where]()


@pytest.mark.parametrize(
    "bad",
    [
        {"corrected_weight_decay": 0.0},
        {"update_clipping": "rate"},
        {"norm_control": "sphere"},
        {"norm_control": "project", "norm_control_every": 0},
        {"norm_control": "hyperball", "norm_control_every": 2},
        {"exclude_from_norm_control": ["logits"]},
        {"exclude_from_adaptive_clipping": ["logits"]},
        {"adaptive_clipping": 0},
        {"z_clipping": -1.0},
        {"z_clipping": True},
        {"clipnorm": 1.0, "adaptive_clipping": 0.1},
        {"clipvalue": 1.0, "z_clipping": 2.5},
        *(
            {name: value, "lazy_embeddings": True}
            for name, value in (
                ("cautious", True),
                ("update_clipping", True),
                ("norm_control", "project"),
                ("gradient_centralization", True),
                ("adaptive_clipping", 0.1),
            )
        ),
    ],
    ids=show,
)
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=rf"`({'|'.join(bad)})`.*Received: "):
        AdamW(**bad)


@pytest.mark.parametrize(
    ("kind", "rules"),
    [
        (ScheduleFreeAdamW, {"cautious": True}),
        (ScheduleFreeAdamW, {"norm_control": "project"}),
        (ScheduleFreeAdamW, {"cautious_weight_decay": True}),
        (Prodigy, {"cautious": True}),
        (COCOB, {"norm_control": "project"}),
        (DAdaptSGD, {"cautious": True}),
        (SGD, {"update_clipping": True}),
        (Muon, {"update_clipping": True}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else show(value),
)
def test_methods_that_contradict_a_rule(kind, rules):
    with pytest.raises(ValueError, match=rf"{kind.__name__} has no `{next(iter(rules))}`: .*Received: "):
        kind(**rules)


def test_wrappers_that_move_weights_off_their_norms():
    for kind in (Lookahead, ScheduleFreeWrapper, GradientGrouping, LocalUpdates):
        with pytest.raises(ValueError, match=f"{kind.__name__} moves weights .* inner norm_control='project'"):
            kind(SGD(norm_control="project"))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda **rules: AdaBound(weight_decay=0.1, **rules),
        lambda **rules: RectifiedAdam(weight_decay=0.1, decay_placement="gradient", **rules),
    ],
)
def test_weight_decay_in_the_gradient(optimizer):
    for name in ("cautious", "cautious_weight_decay"):
        with pytest.raises(ValueError, match=f"has no `{name}` with this weight decay"):
            optimizer(**{name: True}).build([*variables().values()])


# Every method


STEP_RULES = [
    {"cautious": True},
    {"cautious_weight_decay": True},
    {"norm_control": "project"},
    {"norm_control": "hyperball"},
    {"update_clipping": True},
]


@nightly
@pytest.mark.parametrize("rules", STEP_RULES, ids=show)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_method(case, rules):
    """It moves, or is refused by name."""
    weights = [*variables().values()]
    try:
        optimizer = case.build(weight_decay=0.1, **rules)
        optimizer.build(weights)
    except ValueError as error:
        assert f"`{next(iter(rules))}`" in str(error)  # noqa: PT017
        return
    before = [np.array(ops.convert_to_numpy(v)) for v in weights]
    for t in range(1, 4):
        if case.loss is not None:
            optimizer.set_loss(case.loss)
        optimizer.apply(gradients(t), weights)
    for variable, old in zip(weights, before, strict=True):
        new = ops.convert_to_numpy(variable)
        assert np.all(np.isfinite(new))
        assert np.any(new != old)
    if "norm_control" in rules:
        assert norm(ops.convert_to_numpy(weights[0])) == pytest.approx(norm(before[0]), rel=1e-5)


@pytest.mark.parametrize("case", some(CASES, chosen=lambda case: case.by_day), ids=lambda case: case.name)
def test_weight_decay_apart_is_that_of_the_formula(case, monkeypatch):
    """`decay` returns what the formula takes off, so that there is the same result if all entries decay."""
    monkeypatch.setattr(optimizers.Optimizer, "_decays", staticmethod(lambda direction, w: True))
    histories = []
    for rules in ({}, {"cautious_weight_decay": True}):
        weights = [*variables().values()]
        try:
            optimizer = case.build(weight_decay=0.5, **rules)
            optimizer.build(weights)
        except ValueError as error:
            assert "`cautious_weight_decay`" in str(error)  # noqa: PT017
            return
        for t in range(1, 4):
            if case.loss is not None:
                optimizer.set_loss(case.loss)
            optimizer.apply(gradients(t), weights)
        histories.append([ops.convert_to_numpy(v) for v in weights])
    for one, other in zip(*histories, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
