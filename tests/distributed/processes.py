"""Starts the scripts beside this file, one process or several that talk to each other over loopback."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def free_ports(number=1):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def run(script, *arguments, workers=1, timeout=500, environments=None, check=True):
    """The last line that each worker has printed, read as JSON; with `check=False`, its exit code and all it printed."""
    ports = free_ports(workers)
    started = []
    for worker in range(workers):
        environment = {
            **os.environ,
            "KERAS_LRSCHED_FUSED": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(HERE.parents[1]),
            "CUDA_VISIBLE_DEVICES": "",
            "WORKER": str(worker),
            "WORKERS": ",".join(f"127.0.0.1:{port}" for port in ports),
            "ADDRESSES": json.dumps([f"127.0.0.1:{port}" for port in ports]),
            **(environments[worker] if environments else {}),
        }
        command = [sys.executable, str(HERE / script), *map(str, arguments)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
    try:
        ended = [(process.communicate(timeout=timeout), process.returncode) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.communicate()
    if not check:
        return [(code, printed + errors) for (printed, errors), code in ended]
    assert all(code == 0 for _, code in ended), "\n".join(errors[-3000:] for (_, errors), code in ended if code)
    return [json.loads(printed.splitlines()[-1]) for (printed, _), _ in ended]


def run_tasks(script, tasks, **options):
    """By name, what `run` returns for each of several tasks that share their processes, since importing takes longest.

    Args:
        script: One that ends with `perform(globals())`.
        tasks: Lists of the name of a function in it and its arguments, by the name of the result.
        **options: See `run`.
    """
    workers = run(script, json.dumps({name: list(map(str, task)) for name, task in tasks.items()}), **options)
    return {name: [results[name] for results in workers] for name in tasks}


def perform(functions):
    """The task in the arguments of the command line, or those in its JSON, one after the other; prints the results."""
    first, *names = sys.argv[1:]
    if not first.startswith("{"):
        print(json.dumps(functions[first](*names)), flush=True)
        return
    results = {name: functions[task](*arguments) for name, (task, *arguments) in json.loads(first).items()}
    print(json.dumps(results), flush=True)
