"""Files that are whole or not there, and names for them from labels of users."""

import os
import re
from collections.abc import Iterable
from pathlib import Path


def replace(path: Path, content: str | bytes) -> None:
    """Write a file so that an earlier one stays whole until the new one is."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(new, path)


def folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder, made if it is missing.

    Raises:
        OSError: If it cannot be made or written to.
    """
    made = Path(path).expanduser()
    try:
        made.mkdir(parents=True, exist_ok=True)
        probe = made / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"The report's folder {str(path)!r} cannot be written to: {error.strerror}.") from error
    return made


def distinct_names(labels: Iterable[str]) -> dict[str, str]:
    """Return a file name for each label; they differ even where upper and lower case do not.

    Example:

    >>> distinct_names(["adam", "a/b", "a b", "../x"])
    {'adam': 'adam', 'a/b': 'a_b', 'a b': 'a_b-2', '../x': 'x'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for label in dict.fromkeys(labels):
        stem = re.sub(r"[^A-Za-z0-9.=+-]+", "_", label).strip("._-")[:60] or "unnamed"
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names[label] = name
    return names
