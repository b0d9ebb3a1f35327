"""Runs the tests of tests/faults, and writes docs/benchmarks/reliability.md: each fault, how often, and how it ended.

Run as: python docs/make_reliability.py
"""

import platform
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
TEXT = """# Faults

What happens to a run when something dies. Each fault was made on purpose, so many times, by `make faults`; a test fails if
an outcome is another one. *Exact resume*: the run ended with the same bits as one that was not disturbed, in weights, state
of the optimizer and recorded losses.

| fault | tries | outcome |
| --- | ---: | --- |
"""
NOTES = """
- [`TrainingState`](../methods/callbacks/TrainingState.md) writes a checkpoint beside the last one,
  with a SHA-256, syncs it, and then renames it. The one before stays as `NAME.old`, so there must be room for three.
- A full disk ends the run with an error. When there is room again, start the same script again.
- A checkpoint of another model is refused; the error names the first layer, setting or variable that differs.
- State files, laws, curves and schedules are data: JSON, CSV, arrays of numbers. Reading one runs nothing, and an array is
  at most as large as the file (state) or 256 MiB (`.npz`). The loaders are fuzzed in the quick tests. A checksum shows
  accidents; it does not show who wrote a file.
- A run is guarded against losses that are NaN only by what the table names: `TrainingState` saves what there is.
- A process that is killed while it builds kernels leaves a temporary folder in the cache, which the next build removes.
"""


class Rows:
    """Collects the rows that tests report of faults."""

    def __init__(self):
        self.rows = []

    def pytest_runtest_logreport(self, report):
        if report.skipped:
            self.rows.append((report.nodeid.rpartition("::")[2], "-", f"not run: {report.longrepr[2]}"))
        elif report.when == "teardown":
            self.rows += [value for name, value in report.user_properties if name == "fault"]


def main():
    collected = Rows()
    failed = pytest.main(
        ["-m", "faults", "-n", "0", "--durations", "0", str(FOLDER.parents[1] / "tests/faults")], [collected]
    )
    if failed:
        sys.exit(int(failed))
    (FOLDER / "reliability.md").write_text(page(collected.rows), encoding="utf-8")


def page(rows):
    table = "".join(f"| {fault} | {tries} | {outcome} |\n" for fault, tries, outcome in rows)
    made = f"\nMade on {platform.system()} with Python {platform.python_version()} and TensorFlow, on a CPU.\n"
    return TEXT + table + made + NOTES


if __name__ == "__main__":
    main()
