"""The bisection for the largest initial learning rate."""

import pytest

from keras_lrsched.laws import maximal_learning_rate


def test_finds_the_limit_in_few_runs():
    tried = []

    def succeeds(rate, seed):
        tried.append((rate, seed))
        return rate < 0.3

    found = maximal_learning_rate(succeeds, 1e-4, 10.0, seeds=2, ratio=1.05)
    assert 0.3 / 1.05 <= found < 0.3
    assert {seed for _, seed in tried} == {0, 1}
    assert len({rate for rate, _ in tried}) <= 2 + 8  # ln(1e5) / ln(1.05) = 236 < 2^8


def test_half_of_the_seeds_decide():
    limits = [0.1, 0.2, 0.4]
    found = maximal_learning_rate(lambda rate, seed: rate < limits[seed], 0.01, 1.0, ratio=1.01)
    assert 0.2 / 1.01 <= found < 0.2
    found = maximal_learning_rate(lambda rate, seed: rate < limits[seed], 0.01, 1.0, seeds=2, ratio=1.01)
    assert 0.2 / 1.01 <= found < 0.2  # one of two is half


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.5}, "`low` must be a learning rate that succeeds"),
        ({"high": 0.2}, "`high` must be a learning rate that does not"),
        ({"low": 2.0}, "`low` must be below `high`"),
        ({"seeds": 0}, "`seeds` must be"),
        ({"ratio": 1}, "`ratio` must be above 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message + ".*Received: "):
        maximal_learning_rate(lambda rate, seed: rate < 0.3, **({"low": 0.01, "high": 1.0} | options))
