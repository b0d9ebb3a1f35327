"""The methods that every schedule inherits: arithmetic, values, a plot."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from keras.optimizers.schedules import CosineDecay

from keras_lrsched.schedules import Constant, LinearDecay, Product, Scale, Schedule, Tabulated

LINE = LinearDecay(1.0, 4)


@pytest.mark.parametrize("scaled", [2 * LINE, LINE * 2, LINE / 0.5])
def test_operators(scaled):
    assert isinstance(scaled, Scale)
    assert scaled.total_steps == 4
    np.testing.assert_array_equal(scaled.values(5), [2, 1.5, 1, 0.5, 0])


@pytest.mark.parametrize("product", [LINE * LINE, LINE * CosineDecay(1.0, 4), CosineDecay(1.0, 4) * LINE])
def test_product_of_schedules(product):
    assert isinstance(product, Product)
    assert product.total_steps == 4
    np.testing.assert_allclose(product.values([0, 2, 4]), [1, 0.25, 0], atol=1e-12)


@pytest.mark.parametrize("divisor", [0, -1, float("nan"), "2", None, True, LINE])
def test_division_refuses(divisor):
    with pytest.raises(ValueError, match="Received: divisor="):
        LINE / divisor


@pytest.mark.parametrize("number", [-1, float("nan"), "2", None, True])
def test_multiplication_refuses(number):
    with pytest.raises(ValueError, match="Received: factor="):
        LINE * number


def test_values_of_a_count_or_of_steps():
    np.testing.assert_array_equal(LINE.values(3), [1, 0.75, 0.5])
    np.testing.assert_array_equal(LINE.values(np.int64(3)), [1, 0.75, 0.5])
    np.testing.assert_array_equal(LINE.values([3, 0]), [0.25, 1])
    np.testing.assert_array_equal(LINE.values(np.array([[3], [0]], "uint8")), [[0.25], [1]])
    assert LINE.values(0).shape == LINE.values([]).shape == (0,)


@pytest.mark.parametrize("steps", [-1, 2.5, "3", None, float("nan"), True])
def test_values_refuse(steps):
    with pytest.raises(ValueError, match=f"Received: steps={steps!r}"):
        LINE.values(steps)


def test_before_the_first_step_is_the_first_value():
    np.testing.assert_array_equal(LINE.values([-5, -1, 0]), [1, 1, 1])


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_plot(ax):
    assert LINE.plot(ax=ax, label="line", color="red") is ax
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xydata(), [[0, 1], [1, 0.75], [2, 0.5], [3, 0.25]])
    assert (line.get_label(), line.get_color(), ax.get_xlabel()) == ("line", "red", "update")


def test_plot_on_the_current_axes(ax):
    assert Constant(0.5).plot(steps=3) is ax
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.5] * 3)


def test_plot_without_an_end(ax):
    with pytest.raises(ValueError, match=r"Constant has no end.*Received: steps=None"):
        Constant(0.5).plot(ax=ax)


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-lrsched\[plot\]'"):
        LINE.plot()


def test_a_subclass_says_what_it_lacks():
    class Half(Schedule):
        pass

    with pytest.raises(NotImplementedError, match="Half must implement `compute"):
        Half()(0)
    with pytest.raises(NotImplementedError, match="Half has no usual proportions"):
        Half.for_budget(1.0, 10)


def test_repr_of_a_long_table_is_one_line():
    table = Tabulated([0.5] * 100_000 + [0.25])
    assert repr(table) in ("Tabulated(values=(0.5, 0.5, 0.5, ..., 0.25))", "Tabulated(values=[0.5, 0.5, 0.5, ..., 0.25])")
