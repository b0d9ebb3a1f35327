"""Refined schedules: from files, from norms that are zero, over other horizons."""

from statistics import median

import numpy as np
import pytest

from keras_lrsched.schedules import LinearDecay, RefinedSchedule
from keras_lrsched.schedules.refined_schedule import _smoothed

NORMS = [4.0, 2.0, 1.0, 1.0, 1.5, 2.5]


def test_from_npz(tmp_path):
    path = tmp_path / "run.npz"
    np.savez(path, loss=np.zeros(6), gradient_norm=np.array(NORMS, "float32"))
    schedule = RefinedSchedule.from_run(path, norm="l1", peak_learning_rate=0.3)
    assert schedule.get_config() == RefinedSchedule(NORMS, norm="l1", peak_learning_rate=0.3).get_config()


def test_from_csv(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("step,gradient_norm,loss\n" + "".join(f"{i},{norm},0.1\n" for i, norm in enumerate(NORMS)))
    assert RefinedSchedule.from_run(str(path)).gradient_norms == NORMS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.csv", "step,loss\n1,2\n", r"no `gradient_norm`, only \['step', 'loss'\]"),
        ("run.csv", "", "no `gradient_norm`"),
        ("run.csv", "gradient_norm\n1\nfast\n", "fast"),
        ("run.csv", "gradient_norm\n1\nnan\n", "Received: gradient_norms=nan"),
        ("run.txt", "1\n2\n", "must be an .npz or .csv file. Received: path="),
    ],
)
def test_refuses_a_file(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        RefinedSchedule.from_run(tmp_path / name)


def test_refuses_an_npz(tmp_path):
    np.savez(tmp_path / "other.npz", loss=[1.0])
    with pytest.raises(ValueError, match=r"no `gradient_norm`, only \['loss'\]"):
        RefinedSchedule.from_run(tmp_path / "other.npz")
    np.savez(tmp_path / "objects.npz", gradient_norm=np.array([1.0, None], dtype=object))
    with pytest.raises(ValueError, match="an array of object"):
        RefinedSchedule.from_run(tmp_path / "objects.npz")


@pytest.mark.parametrize(("steps", "tau"), [(1, 1.0), (2, 0.1), (10, 0.1), (10, 0.3), (57, 1.0), (1000, 0.1), (1001, 0.07)])
def test_running_median(steps, tau):
    norms = np.random.default_rng(steps).lognormal(size=steps)
    half = int(tau * steps / 2)
    padded = np.concatenate([np.full(half, norms[0]), norms, norms[::-1][1 : half + 1]])
    expected = [median(padded[i : i + 2 * half + 1]) for i in range(steps)]
    np.testing.assert_array_equal(_smoothed(norms.tolist(), tau), expected)


def test_running_median_of_the_official_code():
    """Spec 13: width 3."""
    assert _smoothed([1, 9, 2, 3, 4, 5, 6, 7, 8, 20], 0.3).tolist() == [1, 2, 3, 3, 4, 5, 6, 7, 8, 8]


def test_width_of_the_median():
    """Spec 13: none at 10 norms, 101 at 1000: a median of 51 equal numbers hides 50 others."""
    assert _smoothed([1.0] * 4 + [9.0] + [1.0] * 5, 0.1)[4] == 9
    for wide, expected in ((50, 1.0), (51, 9.0)):
        norms = [1.0] * 500 + [9.0] * wide + [1.0] * (500 - wide)
        assert _smoothed(norms, 0.1)[500 + wide // 2] == expected


def test_zero_norms_are_finite():
    schedule = RefinedSchedule([0.0, 0.0, 3.0, 3.0, 0.0], tau=0.0)
    np.testing.assert_allclose(schedule.values(5), LinearDecay(1.0, 4).values(5), atol=1e-15)


@pytest.mark.parametrize("total_steps", [2, 5, 100, 1000])
def test_other_horizons(total_steps):
    schedule = RefinedSchedule([2.0] * 50, total_steps=total_steps, peak_learning_rate=0.5)
    assert schedule.total_steps == total_steps
    np.testing.assert_allclose(
        schedule.values(total_steps), LinearDecay(0.5, total_steps - 1).values(total_steps), atol=1e-12
    )


def test_the_shape_keeps_over_another_horizon():
    norms = 1 + np.square(np.linspace(-1, 2, 300))
    short, long = RefinedSchedule(norms, tau=0.0), RefinedSchedule(norms, tau=0.0, total_steps=1197)
    np.testing.assert_allclose(long.values(1197)[::4], short.values(300), atol=0.01)
