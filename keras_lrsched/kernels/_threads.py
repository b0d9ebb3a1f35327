"""The threads in which the C functions run; `ctypes` lets other threads run meanwhile."""

import concurrent.futures
import functools
import os


@functools.cache
def pool(threads: int) -> concurrent.futures.ThreadPoolExecutor:
    """An executor of so many threads, one for all families."""
    return concurrent.futures.ThreadPoolExecutor(threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)  # a forked process has none of the threads, and would wait for them
