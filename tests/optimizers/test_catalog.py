"""The catalog of optimizers."""

import pytest

from keras_lrsched.optimizers import Lion, catalog


def test_alphabetical_and_unique():
    assert catalog.names() == sorted(set(catalog.names()))


def test_rows_are_complete():
    for row in catalog.CATALOG:
        assert catalog.get(row.name) is row
        assert row.title
        assert row.reference == "-" or row.reference.startswith(("arXiv:", "https://"))
        assert isinstance(row.build(), row.optimizer)


def test_build_with_options():
    optimizer = catalog.get("lion").build(learning_rate=0.5, beta_1=0.8)
    assert type(optimizer) is Lion
    assert optimizer.beta_1 == 0.8


@pytest.mark.parametrize(("name", "hint"), [("lionn", "Did you mean lion?"), ("zzz", "Known: ad")])
def test_unknown_name(name, hint):
    with pytest.raises(ValueError, match=f"Unknown optimizer '{name}'. {hint}"):
        catalog.get(name)
