"""The backend that is taken before Keras is imported."""

import json
import os
import sys

import pytest

from keras_lrsched._core import backend_choice


@pytest.fixture
def configured(monkeypatch, tmp_path):
    """A function that sets the environment variable, `keras.json` and what is installed; Keras counts as not imported."""

    def configure(variable, file, installed):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setattr(backend_choice, "installed_backends", lambda: installed)
        monkeypatch.delitem(sys.modules, "keras", raising=False)
        monkeypatch.setenv("KERAS_BACKEND", variable or "")  # so that what the tested function sets is undone
        if variable is None:
            monkeypatch.delenv("KERAS_BACKEND")
        if file is not None:
            (tmp_path / "keras.json").write_text(file)

    return configure


def names(backend):
    return json.dumps({"backend": backend})


@pytest.mark.parametrize(
    ("variable", "file", "installed", "expected"),
    [
        ("jax", names("torch"), ["tensorflow", "jax"], "jax"),
        ("", None, ["torch"], "torch"),
        (None, None, ["jax", "torch"], "jax"),
        (None, None, ["tensorflow", "torch"], None),  # the default of Keras
        (None, names("torch"), ["tensorflow", "torch"], None),  # which Keras reads itself
        (None, names("tensorflow"), ["torch"], "torch"),  # which Keras has written there
        ("", names("tensorflow"), ["jax"], "jax"),
        (None, "{", ["torch"], "torch"),
        (None, "[]", ["torch"], "torch"),
        ("numpy", None, ["torch"], "numpy"),  # another backend of Keras
        (None, names("numpy"), ["torch"], None),
    ],
)
def test_an_installed_backend_is_taken_where_the_user_has_set_none(variable, file, installed, expected, configured):
    configured(variable, file, installed)
    backend_choice.use_installed_backend()
    assert (os.environ.get("KERAS_BACKEND") or None) == expected


@pytest.mark.parametrize(
    ("variable", "file", "installed", "message"),
    [
        (
            "jax",
            None,
            ["torch"],
            "KERAS_BACKEND is 'jax', which is not installed: install one of tensorflow, jax, torch",
        ),
        ("tensorflow", None, ["torch"], "KERAS_BACKEND is 'tensorflow', which is not installed"),
        (None, names("jax"), ["torch"], "The backend in keras.json is 'jax', which is not installed"),
        (None, None, [], "Keras needs a backend: install one of"),
        (None, names("tensorflow"), [], "Keras needs a backend: install one of"),
    ],
)
def test_a_backend_that_is_not_installed_is_refused(variable, file, installed, message, configured):
    configured(variable, file, installed)
    with pytest.raises(ImportError) as error:
        backend_choice.use_installed_backend()
    assert message in str(error.value)


def test_nothing_changes_after_keras_is_imported(configured, monkeypatch):
    configured("jax", None, ["torch"])
    monkeypatch.setitem(sys.modules, "keras", object())
    backend_choice.use_installed_backend()
    assert os.environ["KERAS_BACKEND"] == "jax"


def test_only_what_can_be_imported_is_installed(monkeypatch):
    monkeypatch.setattr(backend_choice.importlib.util, "find_spec", lambda name: object() if name != "jax" else None)
    assert backend_choice.installed_backends() == ["tensorflow", "torch"]
