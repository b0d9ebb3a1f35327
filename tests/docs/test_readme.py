"""The README is short, its links lead somewhere, and those of the package index are absolute."""

import re
import runpy
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([^)]+)\)")
REPOSITORY = "https://github.com/someone/keras-lrsched"


@pytest.fixture
def index(monkeypatch):
    """The README that an index shows if the address of the repository is filled in."""
    made = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **given: made.update(given))
    run = runpy.run_path
    monkeypatch.setattr(runpy, "run_path", lambda path: {**run(path), "REPOSITORY": REPOSITORY})
    run(str(ROOT / "setup.py"))
    return made["long_description"]


def test_at_most_120_lines_and_three_pictures():
    assert len(README.splitlines()) <= 120
    assert len(re.findall(r"!\[", README)) == 3


def test_links_of_the_checkout_lead_somewhere():
    for link in LINK.findall(README):
        assert link.startswith("https://") or (ROOT / link.partition("#")[0]).exists(), link


def test_links_of_the_index_are_absolute(index):
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", index)
    assert len(pictures) == 3
    assert all(each.startswith("https://raw.githubusercontent.com/someone/keras-lrsched/main/docs/") for each in pictures)
    others = set(LINK.findall(index)) - set(pictures)
    assert len(others) > 20
    assert all(each.startswith("https://") for each in others)
    assert f"{REPOSITORY}/blob/main/docs/index.md" in others


def test_counts_are_those_of_the_results():
    results = (ROOT / "docs" / "benchmarks" / "results.md").read_text(encoding="utf-8")
    counts = re.search(r"^(\d+) claims: (\d+) agree, (\d+) weaker, (\d+) do not show", results, flags=re.M)
    words = " ".join(README.split())
    assert "of {}, {} agree, {} show weakly, {} do not show at this scale".format(*counts.groups()) in words


def test_versions_are_those_of_setup_cfg():
    cfg = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    first, after = re.search(r"keras>=3\.(\d+),<3\.(\d+)$", cfg, flags=re.M).groups()
    lowest = {
        name: re.search(rf"^{name} = {name}>=([\d.]+)$", cfg, flags=re.M)[1] for name in ("tensorflow", "jax", "torch")
    }
    line = "Keras 3.{} to 3.{}, on TensorFlow from {tensorflow}, JAX from {jax} or PyTorch from {torch}."
    assert line.format(first, int(after) - 1, **lowest) in README
