"""Scripts, each to be run in a process of its own, are no tests."""

collect_ignore = ["data_parallel.py", "ddp.py", "meeting.py", "mirrored.py", "multi_worker.py"]
