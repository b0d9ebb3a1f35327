"""The contract of every workload, and the data of each."""

import pickle

import keras
import numpy as np
import pytest

from keras_lrsched.study import workloads
from keras_lrsched.study.workloads.cifar10 import CIFAR10
from keras_lrsched.study.workloads.resnet import resnet
from tests.nightly import nightly, some

LABELS = {"digits": (32,), "pydoc": (16, 32)}


@pytest.fixture(scope="module", params=["digits", "pydoc"])
def workload(request):
    return workloads.load(request.param)


def test_a_batch_depends_on_seed_and_step_alone(workload):
    first = [workload.train_batch(step, seed=3) for step in (0, 1, 70)]
    again = [workload.train_batch(step, seed=3) for step in (70, 1, 0)][::-1]
    other = workload.train_batch(0, seed=4)
    for (x, y), (x_again, y_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, y_again)
        assert y.shape == LABELS[workload.name]
    assert not np.array_equal(first[0][0], first[1][0])
    assert not np.array_equal(first[0][0], other[0])


def test_a_seed_gives_the_same_initial_weights(workload):
    one, same, other = (workload.compiled_model(0.1, seed).get_weights() for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_model_returns_logits_of_every_class(workload):
    x, y = workload.train_batch(0, seed=0)
    model = workload.build_model()
    logits = keras.ops.convert_to_numpy(model(x))
    assert logits.shape[:-1] == y.shape
    assert logits.shape[-1] > y.max()
    assert not np.allclose(logits.sum(axis=-1), 1)


@pytest.mark.parametrize("workload", some(["digits", "pydoc"]), indirect=True)
def test_a_few_updates_lower_the_loss(workload):
    model = workload.compiled_model(workload.peak_learning_rate, seed=0)
    before = model.evaluate(*workload.validation, verbose=0)[0]
    model.fit(workload.stream(0), steps_per_epoch=30, shuffle=False, verbose=0)
    assert model.evaluate(*workload.validation, verbose=0)[0] < 0.8 * before


def test_an_epoch_of_digits_shows_every_image_once_and_none_that_is_held_out():
    digits = workloads.load("digits")
    seen = np.concatenate([digits.train_batch(step, seed=0)[0] for step in range(1437 // 32)]).reshape(-1, 64)
    held_out = digits.validation[0].reshape(-1, 64)
    assert len(np.unique(seen, axis=0)) == len(seen) == 1437 // 32 * 32
    assert len(held_out) == 360
    assert not {image.tobytes() for image in seen} & {image.tobytes() for image in held_out}


def test_characters_predict_the_next_one():
    x, y = workloads.load("pydoc").train_batch(0, seed=0)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])


def test_characters_do_not_look_ahead():
    workload = workloads.load("pydoc")
    model = workload.build_model()
    x = workload.train_batch(0, seed=0)[0][:1]
    changed = x.copy()
    changed[:, 20:] = 0
    one, other = (keras.ops.convert_to_numpy(model(tokens)) for tokens in (x, changed))
    np.testing.assert_allclose(one[:, :20], other[:, :20], atol=1e-5)
    assert not np.allclose(one[:, 20:], other[:, 20:], atol=1e-3)


def test_targets_know_their_direction():
    assert workloads.load("digits").reached(0.98)
    assert not workloads.load("digits").reached(0.97)
    assert workloads.load("pydoc").reached(2.0)
    assert not workloads.load("pydoc").reached(2.5)


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
