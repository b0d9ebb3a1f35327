"""The lists that Python reads from headers are those that the C++ compiler has read."""

import dataclasses

import keras
import pytest

from keras_lrsched import kernels
from keras_lrsched.kernels import _c_interface, _lists
from keras_lrsched.optimizers import SGD, AdamMini, AdamW, Lamb, Lars, Lion
from keras_lrsched.precision import FORMATS

FUSED = {each.kernel: each for each in (SGD, AdamMini, AdamW, Lamb, Lars, Lion)}


def test_updates_are_those_of_the_library():
    library = _c_interface.load("update")
    for number, (name, parameters) in enumerate(_lists.update_parameters().items()):
        assert library.klr_method_name(number).decode() == name
        assert library.klr_parameter_names(number).decode().split(", ") == list(parameters)
        assert library.klr_parameter_count(number) == len(parameters)
        assert library.klr_find_method(name.encode()) == number
        for code in _lists.state_codes().values():
            assert library.klr_takes_code(number, code, 256) == (name in _lists.updates_of_codes())
    assert library.klr_find_method(b"adam") == -1
    assert not library.klr_in_blocks(-1)


@pytest.mark.parametrize("name", FUSED)
def test_optimizers_return_all_parameters_of_their_kernel(name):
    named = {"gradient_scale": 1.0, **FUSED[name](0.1).kernel_parameters(keras.ops.ones(()))}
    assert kernels.parameters_in_order(name, named) == [named[each] for each in _lists.update_parameters()[name]]


def test_there_is_an_optimizer_for_each_compiled_update():
    assert set(FUSED) == set(_lists.update_parameters())


def test_elements_and_scale_rules_are_those_of_formats():
    for format in FORMATS.values():
        assert _lists.elements()[format.element.name] == dataclasses.astuple(format.element)[1:]
        assert format.scale_rule in _lists.scale_rules()


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("adam", {}, "There is no compiled update 'adam'. Available: sgd, lion, "),
        ("sgd", {"momentum": 0.9}, "are gradient_scale, momentum, nesterov. Received: momentum"),
    ],
)
def test_unknown_names(method, parameters, message):
    with pytest.raises(ValueError, match=message):
        kernels.parameters_in_order(method, parameters)
