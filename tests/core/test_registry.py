"""The registry: joining it, finding an entry, and reading it from the source."""

import keras
import numpy as np
import pytest

from keras_lrsched import register, schedules
from keras_lrsched._core import registry
from keras_lrsched.schedules import PhasedSchedule, Segment


@pytest.fixture
def entries():
    """The list of entries, restored after the test."""
    before = list(registry._entries)
    yield registry._entries
    registry._entries[:] = before


@pytest.fixture
def hat(entries):
    @register("hat", title="up and down again", kind="learning rate")
    class Hat(PhasedSchedule):
        def __init__(self, peak, steps):
            self.peak, self.steps = peak, steps
            self.segments = [Segment(steps / 2, 0.0, peak), Segment(steps / 2, peak, 0.0)]

        @classmethod
        def for_budget(cls, peak_learning_rate, total_steps, warmup_steps=0, **options):
            return cls(peak_learning_rate, total_steps, **options)

    return Hat


def test_a_schedule_of_a_user_is_found_by_its_name(hat):
    schedule = schedules.get("hat", peak_learning_rate=1.0, total_steps=4)
    assert isinstance(schedule, hat)
    np.testing.assert_array_equal(schedule.values(5), [0, 0.5, 1, 0.5, 0])
    assert "hat" in schedules.names()


def test_a_schedule_of_a_user_is_saved_and_loaded(hat):
    config = keras.optimizers.schedules.serialize(hat(1.0, 4))
    assert isinstance(keras.optimizers.schedules.deserialize(config), hat)


def test_a_name_belongs_to_one_method_of_a_room(entries):
    with pytest.raises(ValueError, match=r"There is a schedules entry of this name\. Received: name='rex'"):

        @register("rex", title="another")
        class Other(PhasedSchedule):
            pass


def test_unknown_evidence_is_refused():
    with pytest.raises(ValueError, match=r"`checked` must be one of trajectory, .* Received: checked='sure'"):
        register("sure", title="a method", checked="sure")


def test_what_extends_nothing_of_ours_is_refused():
    with pytest.raises(ValueError, match="Only methods that extend a class of keras_lrsched can be registered"):
        register("stranger", title="a stranger")(type("Stranger", (), {}))


@pytest.mark.parametrize(
    ("name", "hint"), [("rexx", "Did you mean rex?"), ("REX", "Did you mean rex?"), ("zzz", "Known: constant, ")]
)
def test_an_unknown_name_is_answered_by_the_nearest(name, hint):
    with pytest.raises(ValueError, match="Unknown schedule") as error:
        registry.find("schedules", name, "learning rate")
    assert hint in str(error.value)


PACKAGES = ("callbacks", "data", "laws", "optimizers", "precision", "schedules", "study.workloads", "transfer")


@pytest.mark.parametrize("package", PACKAGES)
def test_reading_the_source_gives_the_entries(package):
    __import__(f"keras_lrsched.{package}")
    room = package.partition(".")[0]
    defaults = {"paper": None, "code": (), "checked": None, "against": "", "deviations": "", "kind": ""}
    defaults |= {"options": {}, "choices": {}}
    fields = ("title", *defaults)
    of_source = [
        (row["name"], row["target"], *({**defaults, **row}[name] for name in fields)) for row in registry.read(room)
    ]
    of_entries = [
        (entry.name, entry.target.__name__, *(getattr(entry, name) for name in fields)) for entry in registry.entries(room)
    ]
    assert of_source == of_entries


def test_public_names():
    namespace = {"Public": int, "_private": 1, "registry": registry, "CONSTANT": 2, "__name__": "x"}
    assert registry.public_names(namespace) == ["CONSTANT", "Public"]
    assert registry.public_names(namespace, modules=("registry",)) == ["CONSTANT", "Public", "registry"]
