"""The formulas behind the page on scale, and its numbers, which are those of the files."""

import csv
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "benchmarks"


@pytest.fixture(scope="module")
def scale():
    spec = importlib.util.spec_from_file_location("scale_simulation", ROOT / "benchmarks" / "scale_simulation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(scale):
    sizes = np.array(scale.BATCH_SIZES)
    return scale.Model(sizes, 0.002 + 0.001 * sizes, 1e6, critical_batch=100.0, bandwidth=1e9, latency=1e-5)


def rows(name):
    with open(DOCS / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_step_is_a_line(model):
    assert (model.fixed, model.per_sample) == pytest.approx((0.002, 0.001))
    assert model.compute(10) == pytest.approx(0.012)


def test_ring(model):
    """Each worker sends 2 (N - 1) / N of the gradients, in 2 (N - 1) messages."""
    assert model.all_reduce(1) == 0.0
    assert model.all_reduce(2) == pytest.approx(4e6 / 1e9 + 2e-5)
    assert model.all_reduce(101) == pytest.approx(2 * 100 / 101 * 4e6 / 1e9 + 200 * 1e-5)


def test_noise(model):
    """At the critical batch size, twice the steps of a batch without noise."""
    assert model.goodput(10, 10) == pytest.approx(0.5 / model.step(10, 10))
    few, many = (model.goodput(1, batch) * model.step(1, batch) for batch in (1, 1e9))
    assert few == pytest.approx(1 / 101)
    assert many == pytest.approx(1.0)


def test_best_batch_is_the_best(scale, model):
    row = model.row(8)
    assert row["batch"] == 8 * row["batch_of_a_worker"]
    assert all(model.goodput(8, batch) <= model.goodput(8, row["batch_of_a_worker"]) for batch in scale.PER_WORKER)
    assert model.row(1)["speed_up"] == 1.0


def test_synchronization(scale):
    row = scale.qsr("cosine", 2.0)
    period = scale._period("cosine", 2.0)
    assert period.values([0])[0] == 4
    assert row["averages"] == len(period.averages())
    assert period.averages()[-1] == scale.UPDATES


@pytest.mark.parametrize("name", ["scale.csv", "scale_qsr.csv"])
def test_the_page_has_the_numbers_of_the_file(name):
    page = (DOCS / "scale.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\|\n)+", page, flags=re.MULTILINE)
    cells = [[[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]] for table in tables]
    assert [list(row.values()) for row in rows(name)] in cells
