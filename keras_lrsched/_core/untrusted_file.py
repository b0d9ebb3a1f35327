"""Files that may come from anywhere."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def refused(kind: str, path: Any, passing: tuple = ()) -> Iterator:
    """Turn whatever the content of a file makes its reader raise into a `ValueError` that names the file.

    A reader of strange content raises errors of a dozen kinds: `RecursionError` for nested JSON, `OverflowError` for large
    numbers, `KeyError`, `zlib.error`, `MemoryError`. Errors of the disk stay `OSError`.

    Args:
        kind: What the file should hold.
        path: The file.
        passing: Types of errors that are left as they are. Defaults to `()`.
    """
    try:
        yield
    except (OSError, *passing):
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"The file holds no {kind}: {reason:.300}. Received: path={str(path)!r}") from error
