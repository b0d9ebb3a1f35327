"""Nodes of a Ray cluster on this machine, each started by `ray start` as on a machine of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Cluster:
    """Nodes with one CPU each, which take a token. Their processes end with the block that it is used in."""

    def __init__(self):
        # Ray's sockets lie in this folder, and the names of sockets must be short.
        self._folder = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp")
        self._environment = {
            **os.environ,
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_initial_delay_ms": "0",
            "RAY_health_check_timeout_ms": "2000",
        }
        self._nodes: list[subprocess.Popen] = []
        self.address = None

    def __enter__(self):
        log = self._start("--head", "--port=0", f"--temp-dir={self._folder.name}", "--include-dashboard=false")
        self.address = re.search(r"--address='(\S+)'", log).group(1)
        return self

    def __exit__(self, *error):
        while self._nodes:
            self.end(self._nodes[-1])
        self._folder.cleanup()

    def add(self):
        """One more node, to be given to `end`."""
        self._start(f"--address={self.address}")
        return self._nodes[-1]

    def end(self, node):
        """Ends a node at once, as if its machine had lost power."""
        for process in [*_session(node.pid)]:
            if process != node.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        try:
            node.wait(10)  # it looks after them, and ends by itself
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()
        self._nodes.remove(node)

    def _start(self, *words):
        ray = Path(sys.executable).with_name("ray")
        sizes = ["--num-cpus=1", "--num-gpus=0", f"--object-store-memory={80 * 2**20}", "--disable-usage-stats", "--block"]
        with tempfile.NamedTemporaryFile("w+") as log:
            command = [str(ray), "start", *words, *sizes]
            node = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=self._environment, start_new_session=True
            )
            self._nodes.append(node)
            deadline = time.monotonic() + 120
            while "Ray runtime started" not in (text := Path(log.name).read_text()):
                if node.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"ray start has failed: {text}")
                time.sleep(0.2)
        return text


def _session(leader):
    """The processes of a session: those that a node has started."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                    yield int(folder.name)
