"""Compiler processes that never outlive the process that started them."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

WATCHER = ["/bin/sh", "-c", "read line; kill -KILL 0"]
"""Waits until the pipe at its standard input is closed, and kills its process group, itself included."""


class Command(NamedTuple):
    """A command that was started, and the file with its output."""

    process: subprocess.Popen
    log: Path


class ProcessGroup:
    """A context that runs commands side by side, and kills whatever is left of them at its end.

    The commands and their children form one process group, which a watcher belongs to. The operating system closes the pipe
    of the watcher when this process, and those that were forked from it meanwhile, end in whatever way, even by SIGKILL;
    then the watcher kills the group.
    """

    def __enter__(self):
        null = subprocess.DEVNULL
        self._watcher = subprocess.Popen(WATCHER, stdin=subprocess.PIPE, stdout=null, stderr=null, process_group=0)
        self._started: list[subprocess.Popen] = []
        return self

    def __exit__(self, *error):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._watcher.pid, signal.SIGKILL)
        for process in (*self._started, self._watcher):
            process.wait()
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()

    def start(self, command, log, folder=None):
        """Starts a command, whose output goes to the file `log`.

        Raises:
            OSError: If the command cannot be run.
        """
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                process_group=self._watcher.pid,
            )
        self._started.append(process)
        return Command(process, log)


def wait(processes, deadline, every, report):
    """Waits for all processes; calls `report(done)` with the number of those that ended, each time `every` seconds passed.

    Raises:
        TimeoutError: If one still runs at the `deadline`, a value of `time.monotonic()`.
    """
    next_report = time.monotonic() + every
    for process in processes:
        while True:
            try:
                process.wait(timeout=max(0.0, min(next_report, deadline) - time.monotonic()))
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                report(sum(each.poll() is not None for each in processes))
                next_report += every
