"""The update within a compiled step: in place, and with no copy of a variable."""

import re

import keras
import numpy as np
import pytest

from keras_lrsched.optimizers import AdamW
from tests.nightly import nightly

SHAPES = ((300, 200), (200,), (7,))
BACKEND = keras.backend.backend()


def problem():
    variables = [keras.Variable(np.ones(shape, "float32")) for shape in SHAPES]
    optimizer = AdamW(0.1, fused=True)
    optimizer.build(variables)
    return variables, optimizer, [keras.ops.ones(shape) for shape in SHAPES]


def assert_in_place(module, variables):
    """Every variable and its two slots share a buffer with a parameter, and no copy has their shape."""
    calls = [line for line in module.splitlines() if "keras_lrsched_update" in line and "custom-call" in line]
    assert len(calls) == 1
    assert len(re.findall(r"\{\d+\}: \(\d+, \{\}\)", calls[0])) == 3 * variables
    header = module.splitlines()[0]
    assert len(re.findall(r"(?:may|must)-alias", header)) >= 3 * variables
    copies = [line for line in module.splitlines() if re.search(r"= f32\[(300,200|200|7)\]\S* copy\(", line)]
    assert not copies


@nightly
@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow's XLA")
def test_tensorflow_xla():
    import tensorflow as tf

    variables, optimizer, gradients = problem()
    step = tf.function(lambda *g: optimizer.apply(list(g), variables), jit_compile=True)
    step(*gradients)
    module = step.experimental_get_compiler_ir(*gradients)(stage="optimized_hlo")
    assert_in_place(module, len(variables))


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
def test_jax():
    import jax

    variables, optimizer, gradients = problem()
    state = [v.value for v in variables], [v.value for v in optimizer.variables]

    def step(state, gradients):
        return optimizer.stateless_apply(state[1], gradients, state[0])

    compiled = jax.jit(step, donate_argnums=0).lower(state, gradients).compile()
    assert_in_place(compiled.as_text(), len(variables))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about resource variables")
class TestResourceVariables:
    def test_who_reads_before_keeps_the_old_value(self):
        variables, optimizer, gradients = problem()
        old = variables[0].value.read_value()
        optimizer.apply(gradients, variables)
        np.testing.assert_array_equal(old, 1)
        assert (np.asarray(variables[0]) < 1).all()

    def test_two_steps_in_one_graph_are_in_order(self):
        import tensorflow as tf

        variables, optimizer, gradients = problem()

        @tf.function
        def two():
            optimizer.apply(gradients, variables)
            between = tf.identity(variables[1].value)
            optimizer.apply(gradients, variables)
            return between, tf.identity(variables[1].value)

        between, after = two()
        assert (after.numpy() < between.numpy()).all()
        assert (between.numpy() < 1).all()

    def test_a_variable_given_twice(self):
        import tensorflow as tf

        from keras_lrsched.kernels import _tensorflow_update

        w, m = keras.Variable(np.ones(3, "float32")), keras.Variable(np.zeros(3, "float32"))
        rates, parameters, seed = np.zeros((2, 3), "float32"), np.zeros(12, "float32"), np.zeros(2, "uint32")
        gradients = [tf.ones(3)] * 2
        with pytest.raises(tf.errors.InvalidArgumentError, match="given twice"):
            _tensorflow_update.update("lion", [w, w], [[m], [m]], gradients, rates, parameters, seed, False, [])

    def test_an_uninitialized_variable(self):
        import tensorflow as tf

        op = __import__("keras_lrsched.kernels._tensorflow_update", fromlist=["_op"])._op()
        handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[3], shared_name="nothing_in_it")
        numbers, seed = np.zeros(12, "float32"), np.zeros(2, "uint32")
        with pytest.raises(tf.errors.OpError, match=r"nothing_in_it|not initialized|not found"):
            op([handle], [handle], [tf.ones(3)], np.zeros((1, 3), "float32"), numbers, seed, "lion", False)
