"""Prints the matrix behind the results: a row for each program, a column for each feature."""

import importlib.util

import pytest

collect_ignore = [] if importlib.util.find_spec("keras_hub") else ["backbones.py"]
"""Files that the search for examples in docstrings cannot import."""

_failed: set[tuple[str, str]] = set()
_run: set[tuple[str, str]] = set()


def pytest_runtest_logreport(report):
    if "test_cell[" in report.nodeid and report.when == "call":
        cell = tuple(report.nodeid.partition("[")[2].rstrip("]").split("-", 1))
        _run.add(cell)
        if report.failed or hasattr(report, "wasxfail"):
            _failed.add(cell)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    if not _run:
        return
    from tests.programs.matrix import FEATURES, table

    names = list(FEATURES)
    for number, name in enumerate(names, 1):
        terminalreporter.write_line(f"{number:3}  {name}")
    counts = {"exact": 0, "warned": 0, "refused": 0, "-": 0, "BUG": 0, "not run": 0}
    terminalreporter.write_line(" " * 28 + "".join(f"{number:4}" for number in range(1, len(names) + 1)))
    for program, *supports in table()[1:]:
        line = f"{program:28}"
        for name, support in zip(names, supports, strict=True):
            if support != "-" and (program, name) not in _run:
                support = "not run"
            if (program, name) in _failed:
                support = "BUG"
            counts[support] += 1
            line += f"{SHORT[support]:>4}"
        terminalreporter.write_line(line)
    counts = {name: count for name, count in counts.items() if count}
    terminalreporter.write_line(", ".join(f"{name} ({SHORT[name]}): {count}" for name, count in counts.items()))


SHORT = {"exact": "=", "warned": "w", "refused": "x", "-": "-", "BUG": "BUG", "not run": "."}
