"""A warning where Keras is not one of those that were tested."""

import configparser
import pathlib
import warnings

import keras
import pytest

from keras_lrsched._core import keras_versions
from keras_lrsched.version import KERAS


@pytest.mark.parametrize("installed", ["2.15.0", "3.0.0", "3.99.1", "4.0.0"])
def test_an_untested_keras_warns_with_both_versions(installed, monkeypatch):
    monkeypatch.setattr(keras, "__version__", installed)
    with pytest.warns(UserWarning, match=f"Keras {installed} is installed.*>={KERAS[0]},<{KERAS[1]}") as caught:
        keras_versions.warn_if_untested()
    assert len(caught) == 1


@pytest.mark.parametrize("installed", [keras.__version__, KERAS[0], f"{KERAS[0]}.7", "3.15.0.dev2026"])
def test_a_tested_keras_does_not_warn(installed, monkeypatch):
    monkeypatch.setattr(keras, "__version__", installed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_versions.warn_if_untested()


def test_the_package_requires_the_same_versions():
    config = configparser.ConfigParser(interpolation=None)
    config.read(pathlib.Path(__file__).parents[2] / "setup.cfg")
    required = config["options"]["install_requires"].split()
    assert [each for each in required if each.startswith("keras")] == [f"keras>={KERAS[0]},<{KERAS[1]}"]
