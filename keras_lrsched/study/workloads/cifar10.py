"""CIFAR-10 (Krizhevsky 2009) with a ResNet-20, from a folder that is given."""

import io
import itertools
import pickle
from pathlib import Path

import keras
import numpy as np

from keras_lrsched._core.npz import read_arrays
from keras_lrsched._core.registry import register
from keras_lrsched._core.untrusted_file import refused
from keras_lrsched.study.workloads.base import ShuffledEpochs, Workload, required_file
from keras_lrsched.study.workloads.resnet import resnet

# `keras.datasets.cifar10.load_data()` caches the batches in the last two places below ~/.keras/datasets.
_LAYOUTS = ("cifar10_jpeg.npz", "data_batch_1", "cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py")


@register("cifar10", title="CIFAR-10, ResNet-20", kind="image classification", paper="arXiv:1512.03385")
class CIFAR10(Workload):
    """50,000 images to train on, 10,000 to validate; ResNet-20 with flips and shifts; SGD with momentum, batches of 128.

    The folder holds either `cifar10_jpeg.npz` (the images as JPEG bytes: `train_bytes`, `train_offsets`, `train_labels`
    and the same for `test`) or the original Python batches, as Keras caches them (`~/.keras/datasets`).

    Target: a validation accuracy of 0.90. The paper's ResNet-20 reaches 0.9125 in 64,000 updates.
    """

    needs_data_dir = True
    batch_size = 128
    peak_learning_rate = 0.1
    budgets = (390, 3900)
    metric = "val_accuracy"
    target = 0.90

    def __init__(self, data_dir=None):
        path = required_file(self.name, data_dir, *_LAYOUTS)
        load = _load_jpegs if path.suffix == ".npz" else _load_batches
        (images, labels), (held_out, held_out_labels) = load(path if path.suffix == ".npz" or path.is_dir() else path.parent)
        # Padded once for the random shifts: 4 pixels on each side, as in the paper.
        padded = np.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
        self._train = ShuffledEpochs(padded, labels, self.batch_size)
        self._mean, self._deviation = images.mean(axis=(0, 1, 2)), images.std(axis=(0, 1, 2))
        self.validation = self._standardized(held_out), held_out_labels

    def _standardized(self, images):
        return ((images - self._mean) / self._deviation).astype("float32")

    def train_batch(self, step, seed):
        padded, labels = self._train.batch(step, seed)
        rng = np.random.default_rng([seed, step])
        shifts, flips = rng.integers(9, size=(len(padded), 2)), rng.integers(2, size=len(padded))
        images = np.stack(
            [
                image[top : top + 32, left : left + 32][:, :: -1 if flip else 1]
                for image, (top, left), flip in zip(padded, shifts, flips, strict=True)
            ]
        )
        return self._standardized(images), labels

    def build_model(self):
        return resnet(blocks_per_stage=3)

    def optimizer(self, learning_rate):
        return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True)


def _load_jpegs(path):
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("The workload 'cifar10' needs Pillow: pip install 'keras-lrsched[compare]'") from error

    def decoded(data, offsets):
        files = (data[start:end].tobytes() for start, end in itertools.pairwise(offsets))
        try:
            return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
        except OSError as error:  # Pillow's, for what is no image
            raise ValueError(str(error)) from error

    parts = ("train", "test")
    with refused("images of CIFAR-10", path):
        arrays = read_arrays(path, [f"{part}_{name}" for part in parts for name in ("bytes", "offsets", "labels")])
        return [
            (decoded(arrays[f"{part}_bytes"], arrays[f"{part}_offsets"]), arrays[f"{part}_labels"].astype("int32"))
            for part in parts
        ]


def _load_batches(folder: Path):
    train = [_load_batch(folder / f"data_batch_{i}") for i in range(1, 6)]
    images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return (images, labels), _load_batch(folder / "test_batch")


def _load_batch(path: Path):
    if not path.exists():
        raise FileNotFoundError(f"The data folder {str(path.parent)!r} has no {path.name}, which 'cifar10' needs.")
    with refused("batch of CIFAR-10", path), path.open("rb") as file:
        batch = _ArrayUnpickler(file, encoding="bytes").load()
        images, labels = batch[b"data"].array.reshape(-1, 3, 32, 32), np.array(batch[b"labels"], "int32")
        if labels.shape != images.shape[:1] or np.any((labels < 0) | (labels > 9)):
            raise ValueError(f"labels of shape {labels.shape} for {len(images)} images, or not from 0 to 9")
        return images.transpose(0, 2, 3, 1), labels


class _ArrayUnpickler(pickle.Unpickler):
    """Reads the original batches, which are pickles, and calls nothing but what stands here for NumPy's functions."""

    def find_class(self, module, name):
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"The data file asks for {module}.{name}, which no CIFAR-10 batch needs.")
        return _STAND_INS[module, name]


class _Array:
    """An array of bytes, as large as the bytes that the file has for it."""

    def __init__(self, *ignored):
        pass

    def __setstate__(self, state):
        _, shape, _, _, content = state
        self.array = np.frombuffer(content, "uint8").reshape(shape)


class _Type:
    def __init__(self, name, *ignored):
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"The data file has an array of {name!r}, not of bytes (u1).")

    def __setstate__(self, state):
        pass


def _encode(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"The data file asks for the encoding {encoding!r}, not latin1.")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes for Python 2
}
