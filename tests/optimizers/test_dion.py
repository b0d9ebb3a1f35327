"""Dion and Dion2: their ranks, what they take of the momentum, and experts."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import Dion, Dion2


def kernel(shape=(3, 4), name="kernel"):
    return keras.Variable(np.zeros(shape), dtype="float32", name=name)


@pytest.mark.parametrize(("rank", "message"), [(4, "rank=4, for kernel of shape"), (5, "shorter side of each matrix")])
def test_a_rank_above_the_matrix(rank, message):
    with pytest.raises(ValueError, match=message):
        Dion(rank=rank).build([kernel()])


@pytest.mark.parametrize(("rank", "columns"), [(2, 2), (0.25, 1), (0.5, 2), (1.0, 3)])
def test_ranks_and_fractions(rank, columns):
    optimizer, w = Dion(1.0, rank=rank, weight_decay=None), kernel()
    gradient = np.random.default_rng(0).normal(size=(3, 4))
    optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [w])
    assert tuple(optimizer._states[0]["basis"].shape) == (3, columns)
    values = np.linalg.svd(ops.convert_to_numpy(w), compute_uv=False)
    assert np.sum(values > 1e-5) == columns


def test_the_step_ignores_the_size_of_a_gradient():
    moved = []
    for size in (1e-6, 1.0, 1e6):
        w = kernel()
        Dion(1.0, rank=2, weight_decay=None).apply(
            [ops.convert_to_tensor(size * np.random.default_rng(0).normal(size=(3, 4)), "float32")], [w]
        )
        moved.append(ops.convert_to_numpy(w))
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-2)  # 1e-8 is added to norms
    np.testing.assert_allclose(moved[2], moved[1], atol=1e-5)


def test_what_is_taken_fades():
    """At full rank all of the momentum does; at a lower one it keeps what the directions leave."""
    g = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    for rank in (3, 1):
        optimizer, w = Dion(0.1, rank=rank, momentum=0.5), kernel()
        optimizer.apply([ops.convert_to_tensor(g)], [w])
        left = ops.convert_to_numpy(optimizer._states[0]["momentum"])
        if rank == 3:
            np.testing.assert_allclose(left, 0.5 * g, atol=1e-5)
        taken = np.linalg.svd(g - left, compute_uv=False)
        assert np.sum(taken > 1e-5) == rank


@pytest.mark.parametrize("optimizer", [Dion2])
def test_experts_move_as_they_would_alone(optimizer):
    layer = keras.layers.EinsumDense("bed,edf->bef", (2, 5))
    layer.build((None, 2, 4))
    layer.kernel.assign(np.zeros((2, 4, 5)))
    alone = [kernel((4, 5)) for _ in range(2)]
    together, others = optimizer(0.1, fraction=0.5), optimizer(0.1, fraction=0.5)
    for t in range(3):
        gradient = np.random.default_rng(t).normal(size=(2, 4, 5)).astype("float32")
        together.apply([ops.convert_to_tensor(gradient)], [layer.kernel])
        others.apply([ops.convert_to_tensor(g) for g in gradient], alone)
    np.testing.assert_allclose(layer.kernel, [ops.convert_to_numpy(w) for w in alone], atol=1e-5)


@pytest.mark.parametrize(("shape", "axis"), [((6, 3), 1), ((3, 6), 0), ((4, 4), 1)])
def test_slices_are_along_the_shorter_side(shape, axis):
    """Outputs where both are equal; and only these fade."""
    gradient = np.random.default_rng(0).normal(size=shape).astype("float32")
    largest = int(np.argmax(np.abs(gradient).sum(axis=1 - axis)))
    optimizer, w = Dion2(1.0, fraction=0.3, ef_decay=0.5, weight_decay=None), kernel(shape)
    optimizer.apply([ops.convert_to_tensor(gradient)], [w])
    chosen = [*np.flatnonzero(np.any(ops.convert_to_numpy(w) != 0, axis=1 - axis))]
    assert len(chosen) == int(np.ceil(0.3 * shape[axis]))
    assert largest in chosen
    expected = np.take(gradient, range(shape[axis]), axis).copy()
    index = (slice(None), chosen) if axis else (chosen, slice(None))
    expected[index] *= 0.5
    np.testing.assert_allclose(optimizer._states[0]["momentum"], expected, rtol=1e-6)


def test_vectors_and_output_layers_are_under_adamw():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="body"), keras.layers.Dense(2, name="logits")])
    for optimizer in (Dion(), Dion2()):
        optimizer.build(model.trainable_variables)
        assert [optimizer.matrix_shape(w) for w in model.trainable_variables] == [(4, 4), None, None, None]
