"""The three backends define the same functions; what they have in common."""

import ast
import pathlib

import numpy as np
import pytest
from keras import ops

from keras_lrsched._core import backends

NUMBERS = np.array([0.0, -1.0, 1e-40, np.inf], "float32")


def signatures(name):
    """Names of functions, with parameters, annotations and result, but for constants."""
    path = pathlib.Path(backends.__file__).with_name(f"{name}.py")
    functions = [each for each in ast.parse(path.read_text()).body if isinstance(each, ast.FunctionDef)]
    found = {each.name: (ast.unparse(each.args), ast.unparse(each.returns)) for each in functions if each.name[0] != "_"}
    return {name: found for name, found in found.items() if name != "cond"}


@pytest.mark.parametrize("other", ["jax", "torch"])
def test_modules_define_the_same_functions(other):
    assert signatures(other) == signatures("tensorflow")


def test_every_function_is_exported():
    assert all(hasattr(backends, name) for name in [*signatures("tensorflow"), "cond"])


@pytest.mark.parametrize("old_keras", [False, True])
@pytest.mark.parametrize("shape", [(), (4,), (2, 0), (2, 2)])
def test_view_there_and_back(shape, old_keras, monkeypatch):
    if old_keras:
        monkeypatch.delattr(ops, "view", raising=False)
    x = np.resize(NUMBERS, shape).astype("float32")
    integers = backends.view(ops.convert_to_tensor(x), "int32")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(integers), x.view("int32") if shape else x.reshape(1).view("int32")[0]
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(backends.view(integers, "float32")), x)


def test_cond_runs_one_function():
    chosen = backends.cond(ops.convert_to_tensor(True), lambda: ops.ones(2), lambda: ops.zeros(2))
    np.testing.assert_array_equal(ops.convert_to_numpy(chosen), [1, 1])


def test_alone_a_process_reads_its_own_values():
    assert backends.processes() == backends.replicas() == 1
    assert not backends.is_batch_sharded()
    assert backends.broadcast_from_first({"loss": 0.1}) == {"loss": 0.1}
