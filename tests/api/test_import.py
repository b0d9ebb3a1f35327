"""The modules that `import keras_lrsched` imports at once, and those that it imports on first use."""

import subprocess
import sys

import pytest

from tests.nightly import nightly


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@nightly
def test_classes_of_saved_models_are_registered():
    code = "import keras, keras_lrsched\nprint(keras.saving.get_registered_object('keras_lrsched>REXDecay').__name__)"
    assert run(code) == ["REXDecay"]


@nightly
def test_other_rooms_are_imported_on_first_use():
    code = """
import sys, keras_lrsched
print("keras_lrsched.laws" in sys.modules, "laws" in dir(keras_lrsched))
print(keras_lrsched.laws.LossCurve.__name__, "keras_lrsched.laws" in sys.modules)
"""
    assert run(code) == ["False", "True", "LossCurve", "True"]


def test_an_unknown_name_is_an_attribute_error():
    import keras_lrsched

    with pytest.raises(AttributeError, match="'keras_lrsched' has no attribute 'nothing'"):
        keras_lrsched.nothing  # noqa: B018


def test_the_command_reads_the_registry_without_keras():
    code = """
import sys, keras_lrsched_command
from keras_lrsched._core import registry
print("rex" in [row["name"] for row in registry.read("schedules")], "keras" in sys.modules)
"""
    assert run(code) == ["True", "False"]
