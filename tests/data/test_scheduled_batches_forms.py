"""`fit(ScheduledBatches(...))` gives the training step what `fit(...)` gives it, for all structures and kinds of arrays."""

import collections
import importlib.util

import keras
import numpy as np
import pytest

from keras_lrsched.data import ScheduledBatches
from keras_lrsched.data._fit_data import batches_ahead, data_adapter
from tests.nightly import some

A = np.arange(6.0).reshape(6, 1)
B = np.arange(12).reshape(6, 2)
W = np.linspace(0.5, 1, 6)
Pair = collections.namedtuple("Pair", ["first", "second"])


class Watch(keras.Model):
    """Has a training step that keeps the batches it is given."""

    def call(self, x):
        return keras.ops.zeros(())

    def train_step(self, *args):
        self.seen.append(args[-1])  # JAX also gives the state
        logs = {"loss": keras.ops.zeros(())}
        return (logs, args[0]) if keras.backend.backend() == "jax" else logs


def handed(*args, **options):
    """The batches that arrive in the training step."""
    model = Watch()
    model.seen = []
    model.compile("sgd", run_eagerly=True, jit_compile=False)
    model.fit(*args, shuffle=False, verbose=0, **options)
    return model.seen


def described(batches):
    """Structure, kind, dtype and values."""
    return [keras.tree.map_structure(_described, batch) for batch in batches]


def _described(leaf):
    if leaf is None:
        return "None"
    dense = leaf
    if type(leaf).__name__ == "RaggedTensor":
        return f"ragged {leaf.dtype.name} {leaf.to_list()}"
    if hasattr(leaf, "todense"):
        dense = leaf.todense()
    elif type(leaf).__name__ == "SparseTensor":
        dense = importlib.import_module("tensorflow").sparse.to_dense(leaf)
    kind = "string" if type(leaf).__name__ == "EagerTensor" and leaf.dtype == "string" else str(leaf.dtype)
    values = dense.numpy() if kind == "string" else keras.ops.convert_to_numpy(dense)
    return f"{type(leaf).__name__} {kind} {tuple(leaf.shape)} {values.tolist()}"


def agree(*given, class_weight=None):
    options = {} if class_weight is None else {"class_weight": class_weight}
    expected = handed(*given[:2], sample_weight=given[2] if given[2:] else None, batch_size=4, **options)
    batches = ScheduledBatches(*given, batch_size=4, shuffle=False)
    received = handed(batches, **options)
    assert described(received) == described(expected)
    assert [str(keras.tree.map_structure(lambda _: 0, batch)) for batch in expected] == [
        str(keras.tree.map_structure(lambda _: 0, batch)) for batch in received
    ]


STRUCTURES = {
    "array": lambda a: a,
    "dictionary": lambda a: {"a": a, "b": B},
    "list": lambda a: [a, B],
    "list of one": lambda a: [a],
    "tuple": lambda a: (a, B),
    "tuple of one": lambda a: (a,),
    "tuple of three": lambda a: (a, B, a),
    "nested": lambda a: {"a": [a, B], "b": (a, {"c": a})},
    "named tuple": lambda a: Pair(a, B),
    "ordered": lambda a: collections.OrderedDict([("b", B), ("a", a)]),
}


@pytest.mark.parametrize(
    "structure", some(STRUCTURES, chosen=["array", "list of one", "nested", "named tuple"].__contains__)
)
def test_structures(structure):
    x = STRUCTURES[structure](A)
    agree(x)
    agree(x, B)
    agree(A, x)
    agree(x, A, W)


def test_weights():
    agree(A, B[:, 0], class_weight={0: 1.0, 2: 3.0})
    agree(A, B[:, :1], class_weight={0: 1.0, 2: 3.0})
    agree(A, np.eye(6), class_weight={0: 1.0, 2: 3.0})
    agree(A, [A, B], W)
    agree(A, {"a": A, "b": B}, W)
    agree(A, (A, B), (W, 2 * W))
    for data in (A, [A, B], {"a": A}):
        with pytest.raises(ValueError, match=r"`class_weight` needs.*Received: class_weight=\{0: 1.0\}"):
            handed(ScheduledBatches(data, batch_size=4), class_weight={0: 1.0})
    with pytest.raises(ValueError, match=r"`class_weight` needs.*Received: class_weight=\{0: 1.0\}"):
        handed(ScheduledBatches(A, (A, B), batch_size=4), class_weight={0: 1.0})
    with pytest.raises(ValueError, match="`class_weight` and `sample_weight`"):
        handed(ScheduledBatches(A, A, W, batch_size=4), class_weight={0: 1.0})
    with pytest.raises(ValueError, match="one `sample_weight` array per output"):
        ScheduledBatches(A, (A, B), (W,))
    with pytest.raises(ValueError, match="`sample_weight` needs `y`"):
        ScheduledBatches(A, sample_weight=W)


DTYPES = ["float16", "float64", "uint8", "int64", "bool", "bfloat16", "float32", "int8", "int32"]


@pytest.mark.parametrize("dtype", some(DTYPES, first=6))
def test_dtypes(dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    agree(B.astype(dtype))


def arrays_of(kind):
    if kind == "tensors of the backend":
        return keras.ops.convert_to_tensor(A), keras.ops.convert_to_tensor(B)
    if kind == "tf":
        tf = pytest.importorskip("tensorflow")
        return tf.constant(A), tf.constant(B, "int64")
    if kind == "jax":
        jax = pytest.importorskip("jax")
        return jax.numpy.asarray(A), jax.numpy.asarray(B)
    if kind == "torch":
        torch = pytest.importorskip("torch")
        return torch.tensor(A), torch.tensor(B)
    if kind == "pandas":
        pandas = pytest.importorskip("pandas")
        return pandas.DataFrame(A), pandas.Series(W)
    if kind == "ragged":
        tf = pytest.importorskip("tensorflow")
        return tf.ragged.constant([[1.0], [2, 3], [], [4], [5, 6, 7], [8]]), B
    if kind == "tf sparse":
        tf = pytest.importorskip("tensorflow")
        return tf.sparse.from_dense(B), A
    if kind == "jax sparse":
        sparse = pytest.importorskip("jax.experimental.sparse")
        return sparse.BCOO.fromdense(B), A
    if kind == "scipy sparse":
        return importlib.import_module("scipy.sparse").csr_matrix(B), A
    if kind == "strings":
        return np.array(["a", "bc", "d", "e", "f", "g"], object), A
    raise AssertionError(kind)


KINDS = ["tensors of the backend", "tf", "jax", "torch", "pandas", "ragged", "tf sparse", "jax sparse", "scipy sparse"]
if keras.backend.backend() == "tensorflow":
    KINDS.append("strings")


@pytest.mark.parametrize("kind", some(KINDS, chosen=lambda kind: kind not in ("torch", "jax", "jax sparse")))
def test_array_kinds(kind):
    x, y = arrays_of(kind)
    agree(x, y)
    first, second = handed(ScheduledBatches(x, y, batch_size=4, seed=1))
    assert len(first) == len(second) == 2


@pytest.mark.parametrize("structure", ["array", "dictionary", "list"])
def test_batches_ahead_have_the_form_of_those_that_are_trained(structure):
    ahead = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            ahead.append(next(batches_ahead(data_adapter("Ahead"))))

        def on_train_batch_end(self, batch, logs=None):
            batches.trained(batch + 1)

    batches = ScheduledBatches(STRUCTURES[structure](A), batch_size=4, seed=1)
    trained = handed(batches, callbacks=[Look()])
    assert keras.tree.map_structure(values, ahead) == keras.tree.map_structure(values, trained)


def values(leaf):
    return keras.ops.convert_to_numpy(leaf).tolist()
