"""The public names: `__all__` of each room, the committed `__init__.pyi` and the pages of the reference agree."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import make_api
import make_reference

ROOMS = make_api.rooms()


@pytest.mark.parametrize("room", ROOMS)
def test_names_are_unique_and_exist(room):
    module = importlib.import_module(room)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("room", ROOMS)
def test_committed_list_is_that_of_the_room(room):
    path, expected = make_api.path_of(room), make_api.stub(room)
    committed = path.read_text(encoding="utf-8") if path.exists() else None
    assert committed == expected, f"{path.name} of {room} is not what it exports: run make api"


@pytest.mark.parametrize("room", make_reference.ROOMS)
def test_reference_has_every_name(room):
    names = importlib.import_module(f"keras_lrsched.{room}").__all__
    missing = set(names) - {method.name for method in make_reference.methods_of(room)}
    assert not missing, "the reference lacks names: see docs/make_reference.py, and run make api"


def test_every_room_is_in_the_reference():
    import keras_lrsched

    rooms = {name for name in keras_lrsched.__all__ if inspect.ismodule(getattr(keras_lrsched, name))}
    assert rooms <= set(make_reference.ROOMS)
