"""Optimizers by name."""

import keras
import pytest

from keras_lrsched import optimizers
from keras_lrsched._core import registry
from keras_lrsched.optimizers import AdamW, Lion, Lookahead


def test_names_are_sorted_and_unique():
    assert optimizers.names() == sorted(set(optimizers.names()))


UNNAMED = ("model", "layer", "minimizer", "restart")
"""Kinds that `get` has no names for."""
WITHOUT_PAPER = ("LayerwiseLearningRate", "minimize", "refactorize_low_rank", "reset_moments")


def test_rows_are_complete():
    for row in registry.entries("optimizers"):
        assert row.title
        assert row.kind in ("optimizer", "wrapper", *UNNAMED)
        assert (row.name is None) == (row.kind in UNNAMED)
        assert row.paper is None or row.paper.startswith(("arXiv:", "https://"))
        assert row.paper or row.target.__name__ in WITHOUT_PAPER
        assert (row.checked is None) == (row.name == "layerwise_learning_rate")
        assert bool(row.against) == (row.checked is not None)


@pytest.mark.parametrize("name", optimizers.names())
def test_a_name_gives_its_class_with_the_values_of_the_paper(name):
    row, optimizer = registry.find("optimizers", name), optimizers.get(name)
    assert type(optimizer) is row.target
    config = optimizer.inner_optimizer.get_config() if row.kind == "wrapper" else optimizer.get_config()
    assert {option: config[option] for option in row.options} == pytest.approx(row.options)


def test_options_are_those_of_the_constructor():
    optimizer = optimizers.get("lion", learning_rate=0.5, beta_1=0.8)
    assert type(optimizer) is Lion
    assert optimizer.beta_1 == 0.8


def test_options_in_the_name():
    optimizer = optimizers.get("rectified_adam:decay_placement=gradient:beta_2=0.98", beta_1=0.8)
    assert (optimizer.decay_placement, optimizer.beta_2, optimizer.beta_1) == ("gradient", 0.98, 0.8)


def test_a_wrapper_is_around_adamw_which_takes_the_other_options():
    optimizer = optimizers.get("lookahead:sync_period=3", learning_rate=0.5)
    assert (type(optimizer), optimizer.sync_period) == (Lookahead, 3)
    assert type(optimizer.inner_optimizer) is AdamW
    assert float(optimizer.learning_rate) == 0.5


@pytest.mark.parametrize("name", ["adam", "Adam", "SGD", "rmsprop"])
def test_other_names_are_those_of_keras(name):
    optimizer = optimizers.get(name, learning_rate=0.5)
    assert type(optimizer) is type(keras.optimizers.get(name))
    assert float(optimizer.learning_rate) == 0.5


def test_an_optimizer_is_returned_and_a_config_is_built():
    lion = Lion(beta_2=0.5)
    assert optimizers.get(lion) is lion
    assert optimizers.get(keras.saving.serialize_keras_object(lion)).beta_2 == 0.5


@pytest.mark.parametrize(("name", "hint"), [("lionn", "Did you mean lion?"), ("zzz", "Known: ad"), ("optimizer", "Known")])
def test_an_unknown_name_raises_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=f"Unknown optimizer '{name}'. {hint}"):
        optimizers.get(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lion:beta_2", "Options are given as name:option=value"),
        ("lion:beta2=0.9", "'lion' has no option 'beta2'. Did you mean beta_2"),
        ("lookahead:sync=1", "'lookahead' has no option 'sync'. "),
        ("lion:beta_2=2", "`beta_2` must be"),
    ],
)
def test_bad_options_raise(text, message):
    with pytest.raises(ValueError, match=message):
        optimizers.get(text)


def test_options_beside_an_optimizer_raise():
    with pytest.raises(ValueError, match="Options belong to a name"):
        optimizers.get(Lion(), beta_2=0.5)


@pytest.mark.parametrize("identifier", [None, 3])
def test_other_identifiers_raise(identifier):
    with pytest.raises(ValueError, match=f"identifier.*{identifier}"):
        optimizers.get(identifier)
