"""The contract of every workload, and the data of each."""

import pickle

import keras
import numpy as np
import pytest
from scipy.special import log_softmax

from keras_lrsched.study import Study, workloads
from keras_lrsched.study.workloads.characters import TextWindows
from keras_lrsched.study.workloads.cifar10 import CIFAR10
from keras_lrsched.study.workloads.resnet import resnet
from tests.nightly import nightly, some

LABELS = {
    "breast_cancer": (32, 1),
    "diffusion": (64, 8, 8, 1),
    "digits": (32,),
    "factorization": (128, 1),
    "gru": (16, 32),
    "masked_characters": (32, 32),
    "matrix_sensing": (64, 1),
    "pydoc": (16, 32),
}
"""All workloads that need no folder, with the shape of the labels of a batch."""
CLASSIFICATION = ["digits", "gru", "masked_characters", "pydoc"]
AT_THE_START = {
    "breast_cancer": (0.1, 2.0),
    "diffusion": (0.95, 1.05),  # zeros, for noise of variance 1
    "digits": (2.2, 4.0),
    "factorization": (0.65, 0.8),
    "gru": (4.2, 5.0),
    "masked_characters": (4.4, 6.5),
    "matrix_sensing": (0.9, 3.0),
    "pydoc": (4.4, 6.5),
}
"""The loss of the model before training: near that of a uniform guess, or of zeros."""


@pytest.fixture(scope="module")
def loaded():
    """Each workload, loaded once."""
    return {name: workloads.load(name) for name in LABELS}


@pytest.fixture(params=LABELS)
def workload(request, loaded):
    return loaded[request.param]


def equal(one, other):
    leaves = zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def test_eight_workloads_need_no_folder():
    assert [name for name in workloads.names() if not workloads.get(name).needs_data_dir] == list(LABELS)


def test_a_batch_depends_on_seed_and_step_alone(workload):
    first = [workload.train_batch(step, seed=3) for step in (0, 1, 70)]
    again = [workload.train_batch(step, seed=3) for step in (70, 1, 0)][::-1]
    for batch, same in zip(first, again, strict=True):
        assert equal(batch, same)
        assert batch[1].shape == LABELS[workload.name]
    assert not equal(first[0][0], first[1][0])
    assert not equal(first[0][0], workload.train_batch(0, seed=4)[0])


def test_a_worker_process_gets_the_same_data(workload):
    other = pickle.loads(pickle.dumps(workload))
    assert equal(other.train_batch(50, seed=1), workload.train_batch(50, seed=1))
    assert equal(other.validation, workload.validation)


def test_two_loads_have_the_same_data(workload):
    assert equal(workloads.load(workload.name).validation, workload.validation)


def test_a_seed_gives_the_same_initial_weights(workload):
    one, same, other = (workload.compiled_model(0.1, seed).get_weights() for seed in (5, 5, 6))
    assert equal(one, same)
    assert not equal(one, other)


def test_the_loss_at_the_start_is_that_of_a_guess(workload):
    """Outputs fit labels and loss: logits are no probabilities, labels no other shape that broadcasts."""
    x, y = workload.train_batch(0, seed=0)
    keras.utils.set_random_seed(0)
    outputs = workload.build_model()(x)
    assert outputs.shape == (*y.shape, outputs.shape[-1]) if workload.name in CLASSIFICATION else outputs.shape == y.shape
    low, high = AT_THE_START[workload.name]
    assert low < float(workload.loss()(y, outputs)) < high


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_the_model_returns_logits_of_every_class(name, loaded):
    x, y = loaded[name].train_batch(0, seed=0)
    logits = keras.ops.convert_to_numpy(loaded[name].build_model()(x))
    assert logits.shape[-1] > y.max()
    assert not np.allclose(logits.sum(axis=-1), 1)


@pytest.mark.parametrize("name", some(LABELS, chosen=lambda name: name == "matrix_sensing"))
def test_a_few_updates_lower_the_loss(name, loaded):
    workload = loaded[name]
    model = workload.compiled_model(workload.peak_learning_rate, seed=0, jit_compile=workload.jit_compile())
    before = model.evaluate(*workload.validation, verbose=0, return_dict=True)["loss"]
    model.fit(workload.stream(0), steps_per_epoch=60, shuffle=False, verbose=0)
    assert model.evaluate(*workload.validation, verbose=0, return_dict=True)["loss"] < 0.97 * before


@nightly
@pytest.mark.parametrize("name", LABELS)
def test_a_cosine_reaches_the_target_in_the_largest_budget(name, loaded):
    workload = loaded[name]
    budget = 2 * workload.budgets[-1] if name == "pydoc" else workload.budgets[-1]
    made = Study(
        **workload.problem(), schedules=["cosine"], learning_rates=workload.peak_learning_rate, budget=budget, seeds=1
    )
    (outcome,) = made.outcomes(verbose=0)
    assert outcome.steps_to(workload.target, workload.metric, workload.mode) <= budget
    assert outcome.seconds < 60


@pytest.mark.parametrize(("backend", "compiled"), [("tensorflow", False), ("jax", True), ("torch", False)])
def test_a_step_without_xla_is_still_compiled_on_jax(backend, compiled, loaded, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert loaded["matrix_sensing"].jit_compile() is compiled
    assert loaded["pydoc"].jit_compile() is (backend != "torch")


# The data of each


def test_an_epoch_of_digits_shows_every_image_once_and_none_that_is_held_out(loaded):
    digits = loaded["digits"]
    seen = np.concatenate([digits.train_batch(step, seed=0)[0] for step in range(1437 // 32)]).reshape(-1, 64)
    held_out = digits.validation[0].reshape(-1, 64)
    assert len(np.unique(seen, axis=0)) == len(seen) == 1437 // 32 * 32
    assert len(held_out) == 360
    assert not {image.tobytes() for image in seen} & {image.tobytes() for image in held_out}


@pytest.mark.parametrize("name", ["pydoc", "gru"])
def test_characters_predict_the_next_one(name, loaded):
    x, y = loaded[name].train_batch(0, seed=0)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])


@pytest.mark.parametrize(("name", "looks_ahead"), [("pydoc", False), ("gru", False), ("masked_characters", True)])
def test_only_masked_characters_look_ahead(name, looks_ahead, loaded):
    model = loaded[name].build_model()
    x = loaded[name].train_batch(0, seed=0)[0][:1]
    changed = x.copy()
    changed[:, 20:] = 0
    one, other = (keras.ops.convert_to_numpy(model(tokens)) for tokens in (x, changed))
    assert np.allclose(one[:, :20], other[:, :20], atol=1e-5) is not looks_ahead
    assert not np.allclose(one[:, 20:], other[:, 20:], atol=1e-3)


def test_masked_characters_are_asked_for_and_the_others_shown(loaded):
    workload = loaded["masked_characters"]
    inputs, labels = (np.concatenate(parts) for parts in zip(*(workload.train_batch(t, 0) for t in range(30)), strict=True))
    text = np.concatenate([TextWindows.train_batch(workload, t, 0)[0] for t in range(30)])
    chosen = labels != -1
    np.testing.assert_array_equal(labels[chosen], text[chosen])
    np.testing.assert_array_equal(inputs[~chosen], text[~chosen])
    assert chosen.mean() == pytest.approx(0.3, abs=0.01)
    mask = len(workload.vocabulary)
    assert (inputs[chosen] == mask).mean() == pytest.approx(0.8, abs=0.02)
    assert (inputs[chosen] == text[chosen]).mean() == pytest.approx(0.1, abs=0.02)


def test_the_loss_of_masked_characters_is_the_mean_over_the_chosen(loaded):
    workload = loaded["masked_characters"]
    _, labels = workload.train_batch(0, seed=0)
    logits = np.random.default_rng(0).normal(size=(*labels.shape, 103)).astype("float32")
    rows, places = np.nonzero(labels != -1)
    expected = -log_softmax(logits, axis=-1)[rows, places, labels[rows, places]].mean()
    assert float(workload.loss()(labels, logits)) == pytest.approx(expected, rel=1e-5)


def test_noise_and_time_of_a_noised_digit_give_the_digit(loaded):
    inputs, noise = loaded["diffusion"].train_batch(0, seed=0)
    angle = np.pi / 2 * inputs["time"][:, :, None, None]
    digits = {np.round(8 * image + 8).astype(int).tobytes() for image in loaded["diffusion"]._train.inputs}
    known = (np.cos(angle) > 0.1).ravel()  # else rounding errors count
    images = ((inputs["image"] - np.sin(angle) * noise) / np.cos(angle))[known]
    assert {np.round(8 * image + 8).astype(int).tobytes() for image in images} <= digits
    assert len(images) > 50


def test_noise_has_variance_one_and_times_are_uniform(loaded):
    inputs, noise = loaded["diffusion"].validation
    assert noise.shape == (1440, 8, 8, 1)
    assert noise.var() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(np.quantile(inputs["time"], [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.04)


def test_tumors_are_standardized_by_those_that_are_trained_on(loaded):
    train, (held_out, labels) = loaded["breast_cancer"]._train, loaded["breast_cancer"].validation
    np.testing.assert_allclose(train.inputs.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train.inputs.std(axis=0), 1, atol=1e-5)
    assert (len(train.inputs), len(held_out)) == (398, 171)
    assert train.labels.sum() + labels.sum() == 357
    assert not {row.tobytes() for row in train.inputs} & {row.tobytes() for row in held_out}


def test_the_accuracy_of_tumors_is_that_of_logits(loaded):
    (accuracy,) = loaded["breast_cancer"].metrics()
    accuracy.update_state(np.array([[1.0], [0.0], [1.0]]), np.array([[0.2], [-0.2], [-3.0]]))
    assert accuracy.name == "accuracy"
    assert float(accuracy.result()) == pytest.approx(2 / 3)


def test_a_factorization_machine_with_the_vectors_of_the_law_is_the_law(loaded):
    workload = loaded["factorization"]
    model, (fields, clicks) = workload.build_model(), workload.validation
    for name, vectors in workload.law.vectors.items():
        model.get_layer(f"{name}_vectors").set_weights([vectors])
        model.get_layer(f"{name}_biases").set_weights([workload.law.biases[name][:, None]])
    logits = keras.ops.convert_to_numpy(model(fields))
    v, b = workload.law.vectors, workload.law.biases
    user, item, hour = (int(fields[name][7, 0]) for name in ("user", "item", "hour"))
    pairs = v["user"][user] @ v["item"][item] + v["user"][user] @ v["hour"][hour] + v["item"][item] @ v["hour"][hour]
    assert logits[7, 0] == pytest.approx(b["user"][user] + b["item"][item] + b["hour"][hour] + pairs, abs=1e-4)
    assert float(workload.loss()(clicks, logits)) == pytest.approx(0.49, abs=0.005)
    np.testing.assert_allclose(logits[:, 0], workload.law.logits(fields), atol=1e-4)


def test_clicks_follow_the_law_and_users_their_rank(loaded):
    train = loaded["factorization"]._train
    probability = 1 / (
        1
        + np.exp(
            -loaded["factorization"].law.logits(
                {"user": train.inputs[:, :1], "item": train.inputs[:, 1:2], "hour": train.inputs[:, 2:]}
            )
        )
    )
    for low in (0.1, 0.5, 0.8):
        some_clicks = train.labels[(probability > low) & (probability < low + 0.1)]
        assert some_clicks.mean() == pytest.approx(low + 0.05, abs=0.03)
    counts = np.bincount(train.inputs[:, 0], minlength=400)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)


def test_the_matrix_itself_has_the_loss_of_the_noise(loaded):
    workload = loaded["matrix_sensing"]
    left, values, right = np.linalg.svd(workload.matrix)
    np.testing.assert_allclose(values[:5] / values[0], [1, 1 / 2, 1 / 4, 1 / 8, 0], atol=1e-12)
    model = workload.build_model()
    model.get_layer("right").set_weights([right[:8].T])
    model.get_layer("left").set_weights([(left * values)[:, :8].reshape(-1, 1)])
    a, y = workload.validation
    predicted = keras.ops.convert_to_numpy(model(a))
    np.testing.assert_allclose(predicted[:, 0], np.einsum("nij,ij->n", a, workload.matrix), atol=1e-4)
    assert float(workload.loss()(y, predicted)) == pytest.approx(0.01, rel=0.1)
    assert y.var() == pytest.approx(1, abs=0.1)


def test_targets_know_their_direction(loaded):
    assert loaded["digits"].reached(0.98)
    assert not loaded["digits"].reached(0.97)
    assert loaded["pydoc"].reached(2.0)
    assert not loaded["pydoc"].reached(2.5)


@pytest.mark.parametrize("name", workloads.names())
def test_documentation_states_the_target(name):
    workload = workloads.get(name)
    assert f"{workload.target:g}" in workload.__doc__.replace("0.90", "0.9").replace("2.0 ", "2 ")


def test_resnet_20_has_the_layers_and_weights_of_the_paper():
    model = resnet(blocks_per_stage=3)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 19  # and one dense layer
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == 269_722
    assert model.output_shape == (None, 10)


# Folders with data


def test_unknown_workload_suggests_one():
    with pytest.raises(ValueError, match=r"Unknown workload 'digit'\. Did you mean digits"):
        workloads.load("digit")


@pytest.mark.parametrize("name", ["cifar10", "shakespeare"])
def test_missing_data_says_what_is_missing(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="needs data"):
        workloads.load(name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        workloads.load(name, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="has no"):
        workloads.load(name, tmp_path)


def test_shakespeare_from_a_file(tmp_path):
    (tmp_path / "shakespeare.txt").write_text("To be, or not to be: that is the question.\n" * 200)
    workload = workloads.load("shakespeare", tmp_path)
    assert "".join(workload.vocabulary) == "\n ,.:Tabehinoqrstu"
    assert workload.train_batch(0, seed=0)[0].shape == (16, 32)


def batches(folder, images_each=4, payload=None):
    """CIFAR-10's Python batches in miniature."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        data = rng.integers(256, size=(images_each, 3072), dtype="uint8")
        batch = {
            b"data": data,
            b"labels": [int(label) for label in rng.integers(10, size=images_each)],
            b"batch_label": b"1 of 5",
        }
        (folder / name).write_bytes(pickle.dumps(payload or batch, protocol=2))
    return folder


@pytest.mark.parametrize("place", [".", "cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py"])
def test_cifar10_from_what_keras_caches(place, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "batch_size", 8)
    folder = tmp_path / "datasets"
    batches(folder / place)
    workload = workloads.load("cifar10", folder)
    x, y = workload.train_batch(0, seed=0)
    assert (x.shape, x.dtype, y.shape) == ((8, 32, 32, 3), "float32", (8,))
    assert workload.validation[0].shape == (4, 32, 32, 3)


def test_cifar10_channels_are_last(tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "batch_size", 8)
    folder = batches(tmp_path / "c")
    raw = pickle.loads((folder / "test_batch").read_bytes())[b"data"].reshape(-1, 3, 32, 32)
    workload = workloads.load("cifar10", folder)
    restored = workload.validation[0] * workload._deviation + workload._mean
    np.testing.assert_allclose(restored[..., 2], raw[:, 2], atol=1e-3)


def test_cifar10_runs_no_code_from_a_data_file(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("this must not run",)

    with pytest.raises(ValueError, match=r"asks for .*print.*data_batch_1"):
        workloads.load("cifar10", batches(tmp_path / "c", payload=Evil()))


@pytest.mark.parametrize(
    ("data", "message"),
    [(np.zeros((4, 3072), "float32"), "array of 'f4', not of bytes"), (np.array([print]), "array of 'O8', not of bytes")],
)
def test_cifar10_takes_bytes_alone(data, message, tmp_path):
    folder = batches(tmp_path / "c", payload={b"data": data, b"labels": [0] * 4})
    with pytest.raises(ValueError, match=message):
        workloads.load("cifar10", folder)


def test_cifar10_allocates_no_more_than_the_file_has(tmp_path):
    class Giant:
        def __reduce__(self):
            return np.ndarray, ((10**12,), np.dtype("u1"))

    with pytest.raises(ValueError, match="no batch of CIFAR-10"):
        workloads.load("cifar10", batches(tmp_path / "c", payload={b"data": Giant(), b"labels": [0]}))


@nightly
def test_cifar10_from_jpegs(data_dir):
    workload = workloads.load("cifar10", data_dir)
    x, y = workload.train_batch(0, seed=0)
    assert workload.validation[0].shape == (10_000, 32, 32, 3)
    assert abs(float(x.mean())) < 0.5
    assert np.bincount(workload.validation[1]).tolist() == [1000] * 10
    assert y.dtype == "int32"


def test_shakespeare_from_the_data_folder(data_dir):
    assert len(workloads.load("shakespeare", data_dir).vocabulary) == 65
