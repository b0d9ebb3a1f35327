import json

import keras
import numpy as np
import pytest

from keras_lrsched.schedules import Tabulated
from keras_lrsched.tune import Policy

RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"
SETTINGS = [{RATE: 0.1, DECAY: 0.0}, {RATE: 0.02, DECAY: 0.5}]


def test_schedules_are_tabulated():
    schedules = Policy(SETTINGS, ends=[3, 5]).schedules()
    assert set(schedules) == {RATE, DECAY}
    assert all(isinstance(schedule, Tabulated) for schedule in schedules.values())
    np.testing.assert_array_equal(schedules[RATE].values(7), [0.1, 0.1, 0.1, 0.02, 0.02, 0.02, 0.02])
    np.testing.assert_array_equal(schedules[DECAY].values(5), [0, 0, 0, 0.5, 0.5])
    assert schedules[RATE].total_steps == 5


def test_a_file_holds_all_of_it(tmp_path):
    Policy(SETTINGS, ends=[3, 5], seed=7).save(tmp_path / "policy.json")
    loaded = Policy.load(tmp_path / "policy.json")
    assert (loaded.settings, loaded.ends, loaded.seed) == (SETTINGS, [3, 5], 7)


def test_a_piece_more():
    policy = Policy(SETTINGS[:1], ends=[3], seed=1)
    longer = policy.with_piece(SETTINGS[1], 5)
    assert (longer.settings, longer.ends, longer.seed) == (SETTINGS, [3, 5], 1)
    assert policy.ends == [3]


def test_replay():
    """Without gradients, decay alone moves the weight: (1 - rate * decay) an update."""
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(1.0, weight_decay=0.1), loss=lambda y, y_pred: 0.0 * y_pred)
    policy = Policy([{RATE: 0.5, DECAY: 0.5}, {RATE: 0.25, DECAY: 1.0}], ends=[2, 3])
    model.fit(np.ones((3, 1)), np.ones((3, 1)), batch_size=1, verbose=0, callbacks=policy.callbacks())
    assert model.get_weights()[0].item() == pytest.approx(0.75 * 0.75 * 0.75, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "ends", "options", "message"),
    [
        ([], [], {}, "`settings` must be a non-empty list"),
        ([{}], [1], {}, "`settings` must be a non-empty list"),
        ([{RATE: 0.1}, {DECAY: 0.1}], [1, 2], {}, "with the same keys"),
        ([{RATE: -0.1}], [1], {}, "Received: optimizer.learning_rate=-0.1"),
        ([{RATE: 0.1}], [1, 2], {}, "as many `ends` as `settings`. Received: 2 and 1"),
        ([{RATE: 0.1}, {RATE: 0.1}], [2, 2], {}, "`ends` must be strictly increasing"),
        ([{RATE: 0.1}], [10**9], {}, "must not exceed 100000000. Received: ends[-1]=1000000000"),
        ([{RATE: 0.1}], [1], {"seed": -1}, "`seed` must be a non-negative integer. Received: seed=-1"),
        ([{RATE: 0.1}], [1], {"seed": 2**32}, "`seed` must be below"),
    ],
)
def test_bad_input(settings, ends, options, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        Policy(settings, ends, **options)


@pytest.mark.parametrize("content", ["", "[1]", '{"settings": [{"a": 1}]}', '{"settings": 3, "ends": [1]}', '{"a": "NaN"}'])
def test_a_file_that_is_none(content, tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="The file holds no policy"):
        Policy.load(path)


def test_a_file_cannot_ask_for_much_memory(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"settings": [{RATE: 0.1}], "ends": [10**15]}))
    with pytest.raises(ValueError, match="must not exceed"):
        Policy.load(path)
