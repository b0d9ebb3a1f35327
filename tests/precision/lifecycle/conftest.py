"""Scripts, each to be run in a process of its own, are no tests."""

collect_ignore = ["next_process.py", "without_package.py"]
