"""The journal keeps what was finished, whatever ended the program."""

import json
import math

import numpy as np
import pytest

from keras_lrsched.study import journal as module
from keras_lrsched.study.journal import Journal
from keras_lrsched.study.trial import Outcome, Trial

NOTHING = np.array([]), np.array([]), np.array([], "int64"), {}
SETTINGS = {"budget": 10, "rate": 0.1, "schedules": {"rex": "a", "cosine": "b"}}


def finished(seed=0, loss=0.5, optimizer="adamw"):
    trial = Trial(optimizer, "rex: a/b", 0.1 + 0.2, 3, seed)
    curves = np.array([3.0, 2.0, loss]), np.array([0.1, 0.2, 1 / 3])
    return Outcome(trial, "finished", *curves, np.array([1, 3]), {"val_loss": np.array([1.0, loss])}, 1.25)


def assert_same(left, right):
    assert (left.trial, left.status, left.seconds, left.error) == (right.trial, right.status, right.seconds, right.error)
    for name in ("loss", "learning_rate", "evaluated_at"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert left.evaluations.keys() == right.evaluations.keys()
    for name in left.evaluations:
        np.testing.assert_array_equal(left.evaluations[name], right.evaluations[name])


def opened(folder):
    journal = Journal(folder)
    journal.open(SETTINGS)
    return journal


def test_outcomes_come_back_as_they_were(tmp_path):
    journal = opened(tmp_path / "a")
    made = [
        finished(),
        finished(seed=1, loss=math.nan),
        Outcome(Trial("sgd", "rex", 1e-7, 3, 0), "failed", *NOTHING, 0.0, "ValueError: a\u2028 'b'"),
    ]
    for outcome in made:
        journal.add(outcome)
    again = Journal(tmp_path / "a")
    for left, right in zip(again.outcomes(), made, strict=True):
        assert_same(left, right)
    assert again.settings() == SETTINGS
    lines = (tmp_path / "a" / "runs.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["val_loss"] == 0.5
    assert json.loads(lines[1])["val_loss"] is None
    assert sorted(path.suffix for path in (tmp_path / "a" / "curves").iterdir()) == [".npz"] * 3


def test_labels_that_are_alike_have_files_of_their_own(tmp_path):
    journal = opened(tmp_path)
    for optimizer in ("a b", "a_b", "a/b", "x" * 200 + "1", "x" * 200 + "2"):
        journal.add(finished(optimizer=optimizer, loss=len(optimizer)))
    assert len({outcome.trial for outcome in journal.outcomes()}) == 5


@pytest.mark.parametrize("cut", [1, 20, 10_000])
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    journal = opened(tmp_path)
    journal.add(finished())
    whole = (tmp_path / "runs.jsonl").read_bytes()
    (tmp_path / "runs.jsonl").write_bytes(whole + whole[: min(cut, len(whole) - 1)])
    assert len(Journal(tmp_path).outcomes()) == 1
    journal = opened(tmp_path)
    journal.add(finished(seed=1))
    assert [outcome.trial.seed for outcome in journal.outcomes()] == [0, 1]


def test_a_run_without_its_curves_is_not_finished(tmp_path):
    journal = opened(tmp_path)
    journal.add(finished())
    journal.add(finished(seed=1))
    first, second = sorted((tmp_path / "curves").iterdir(), key=lambda path: "-0-" in path.name, reverse=True)
    first.write_bytes(first.read_bytes()[:100])
    assert [outcome.trial.seed for outcome in journal.outcomes()] == [1]
    second.unlink()
    assert journal.outcomes() == []


def test_a_line_that_cannot_be_written_leaves_no_part(tmp_path, monkeypatch):
    journal = opened(tmp_path)
    journal.add(finished())
    write = module.os.write
    monkeypatch.setattr(module.os, "write", lambda descriptor, line: write(descriptor, line[:10]))
    with pytest.raises(OSError, match=r"The line of a run could not be written.*runs\.jsonl"):
        journal.add(finished(seed=1))
    monkeypatch.undo()
    journal.add(finished(seed=2))
    assert [outcome.trial.seed for outcome in journal.outcomes()] == [0, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SETTINGS, "budget": 11}, "Received: budget=11, there budget=10"),
        ({**SETTINGS, "schedules": {"rex": "c", "cosine": "b"}}, r"Received: schedules\['rex'\]='c', there .*='a'"),
        ({**SETTINGS, "schedules": {"rex": "a"}}, r"Received: schedules\['cosine'\]=None, there .*='b'"),
        ({**SETTINGS, "rate": 0.2}, "Received: rate=0.2, there rate=0.1"),
    ],
)
def test_other_settings_are_refused(tmp_path, settings, message):
    opened(tmp_path)
    with pytest.raises(ValueError, match=message):
        Journal(tmp_path).open(settings)


def test_settings_that_another_machine_rounds_otherwise(tmp_path):
    opened(tmp_path)
    Journal(tmp_path).open({**SETTINGS, "rate": 0.1 * (1 + 1e-6)})


@pytest.mark.parametrize("content", [b"{}\n", b"[1]\n", b"no\n", b'{"optimizer": 1}\n', b"\xff\n"])
def test_a_file_of_something_else(tmp_path, content):
    opened(tmp_path)
    (tmp_path / "runs.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=r"holds no runs of a study: .*Received: path="):
        Journal(tmp_path).outcomes()


def test_runs_without_settings(tmp_path):
    (tmp_path / "runs.jsonl").touch()
    with pytest.raises(ValueError, match=r"has runs but no study\.json"):
        opened(tmp_path)


def test_no_study(tmp_path):
    journal = Journal(tmp_path / "none")
    assert journal.settings() is None
    assert journal.outcomes() == []
    assert not (tmp_path / "none").exists()
