"""Quantized models, beside float models whose layers call the recipe's product directly."""

import types

import keras
import numpy as np
import pytest

from keras_lrsched.precision import quantize_model, recipe_names
from keras_lrsched.precision.layers import QUANTIZED
from tests.programs import resuming
from tests.programs.bench import BACKEND
from tests.programs.optimizers import goes_on_when_loaded

NAMES = recipe_names()
FAMILIES = {
    "mxfp8": ("fp8_current", "int8_switchback", "int8_jetfire", "coat", "quest", "quartet_mxfp4", "forward_only"),
    "nvfp4": ("fp4_dge", "fp4_target_precision", "wta_crs"),
    "fp8_delayed": (),
    "aqt_int4": ("double_rounding",),
}
"""By the recipe that is a column of the matrix, the others of its kind: without state, with random numbers, with a variable
that gradients overwrite, and with statistics of the forward passes."""

STATISTICS = "fp8_delayed"


def weights_match(recipe):
    """-> a check: the weights and statistics are those of layers that call the product of `recipe` directly."""

    def check(bench):
        run, by_hand = bench.keras_run(), bench.keras_run()
        plain = [_built(each) for each in (run, by_hand)]
        conversion = convert(run, recipe)
        _assert_all_matrices_are_named(run.model, conversion)
        products = _give_products(by_hand.model, run.model)
        for each in (run, by_hand):
            keras.utils.set_random_seed(2)
            each.train()
        for one, other in zip(*plain, strict=True):
            np.testing.assert_array_equal(_array(one), _array(other), err_msg=one.path)
        for layer, product in products:
            for name, variable in layer.gemm.named_variables.items():
                np.testing.assert_array_equal(_array(variable), _array(product.named[name]), err_msg=f"{layer.path} {name}")
        assert any(_array(product.calls) > 0 for _, product in products)

    return check


def refuse(bench):
    """A model with layers of which the conversion would leave out a product, or with nothing to convert."""
    run = bench.keras_run()
    _built(run)
    with pytest.raises(ValueError, match=r"cannot be quantized: |No layer of the model would compute by "):
        convert(run, "mxfp8")


def killed_and_resumed(bench, folder):
    """A run of a quantized model that is killed and started again has the bits of one that was not."""
    resuming.killed_and_resumed(bench, folder, make=lambda: _converted(bench, STATISTICS))


def saved_and_loaded(bench, folder):
    """A quantized model that is saved, loaded and trained further has the bits of the one that went on."""
    goes_on_when_loaded(_converted(bench, STATISTICS).train(), folder)


def convert(run, recipe):
    """Converts the model of a run. Models without a graph have no head, so that all their layers take part."""
    has_graph = bool(getattr(run.model, "outputs", None))
    head = None if has_graph and len(_products(run.model)) > 1 else ()
    return quantize_model(run.model, recipe, head=head)


def all_recipes():
    """The names of the recipes that are no column of the matrix, each with the column of its kind."""
    pairs = {name: family for family, names in FAMILIES.items() for name in names}
    assert set(pairs) | set(FAMILIES) == set(NAMES)
    return pairs


def _converted(bench, recipe):
    run = bench.keras_run()
    _built(run)
    convert(run, recipe)
    return run


def _built(run):
    """The weights of a run's model, which is called once if it needs that to have them."""
    if not run.model.built and type(run.model).call is not keras.Model.call:
        x = run.options["x"]
        x = next(iter(x))[0] if hasattr(x, "element_spec") else keras.tree.map_structure(lambda array: array[:4], x)
        run.model(keras.tree.map_structure(keras.ops.convert_to_tensor, x))
    return list(run.model.weights)


def _products(model):
    return [layer for layer in model._flatten_layers() if type(layer) in QUANTIZED and not hasattr(layer, "_query_dense")]


def _assert_all_matrices_are_named(model, conversion):
    """No trained matrix is passed over in silence."""
    named = [*conversion.quantized, *conversion.kept, *conversion.unsupported]
    for variable in model.trainable_variables:
        if sum(size != 1 for size in variable.shape) > 1:
            assert any(path in variable.path for path in named), variable.path


class Gemm(keras.layers.Layer):
    """The expected results of a quantized layer, and its state."""

    def __init__(self, layer):
        super().__init__(dtype="float32")
        self.rule, self.seed = layer.gemm.rule, layer.gemm.context.seed
        self.calls = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)
        self.state = {name: self.add_weight(name=name, **spec) for name, spec in self.rule.variables(layer).items()}
        self.named = {"calls": self.calls, **self.state}
        self.built = True

    def __call__(self, inputs, kernel, training=None):
        training = PHASE[-1] if training is None else training
        rows = keras.ops.reshape(keras.ops.cast(inputs, "float32"), (-1, inputs.shape[-1]))
        seed = keras.ops.stack(
            [keras.ops.convert_to_tensor(np.int32(self.seed)), 64 * keras.ops.convert_to_tensor(self.calls)]
        )
        if training:
            self.calls.assign_add(1)
        outputs = self.rule(rows, keras.ops.cast(kernel, "float32"), self.state, seed, training)
        return keras.ops.reshape(outputs, (*keras.ops.shape(inputs)[:-1], kernel.shape[-1]))


PHASE = [False]
"""Whether what runs now is training, innermost last: a `train_step` is, but for what was passed to Keras as not training."""


def _give_products(model, converted):
    """Gives the layers of a plain model the products that those of the converted one have -> pairs of layer and product."""
    products = []
    pairs = zip(model._flatten_layers(), converted._flatten_layers(), strict=True)
    for plain, layer in [(plain, layer) for plain, layer in pairs if getattr(layer, "gemm", None) is not None]:
        kind = QUANTIZED[type(plain)]
        product = Gemm(layer)
        plain._tracker.unlock()
        if BACKEND == "tensorflow":  # which needs no list of all state: `weights` has what is trained only
            vars(plain)["gemm"] = product
            plain.trained_by_recipe = product.trainable_variables
        else:
            plain.gemm = product
        plain._tracker.lock()
        for name in ("_multiply", "_adapter"):
            if hasattr(kind, name):
                setattr(plain, name, types.MethodType(getattr(kind, name), plain))
        plain.call = types.MethodType(_in_known_phase(kind.call), plain)
        products.append((layer, product))
    for name in ("train_step", "test_step", "predict_step"):
        vars(model)[name] = _in_phase(getattr(model, name), name == "train_step")
    return products


def _in_known_phase(call):
    """`call`, with the phase that Keras passes on: the argument of the outermost layer that got one."""

    def in_known_phase(self, inputs, *args, **options):
        training = keras.src.backend.common.global_state.get_global_attribute("current_call_ctx").training
        PHASE.append(PHASE[-1] if training is None else bool(training))
        try:
            return call(self, inputs, *args, **options)
        finally:
            PHASE.pop()

    return in_known_phase


def _in_phase(step, training):
    def in_phase(*args, **options):
        PHASE.append(training)
        try:
            return step(*args, **options)
        finally:
            PHASE.pop()

    return in_phase


def _array(variable):
    return np.array(keras.ops.convert_to_numpy(variable))
