"""Arrays from an .npz file that may come from anywhere: nothing in it is run, and sizes are checked before they are used."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np

LARGEST = 2**28
"""Bytes that an array may have; 33 million numbers."""


def read_arrays(path: str | Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict:
    """Named arrays of numbers, by name.

    Raises:
        ValueError: If the file is no .npz file, is damaged, lacks a required array, or one of them is no array of
            numbers, or larger than `LARGEST`.
    """
    with open(path, "rb") as file:
        try:
            with ZipFile(file) as archive:
                members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
                for name in required:
                    if name not in members:
                        raise ValueError(f"it has no `{name}`, only {list(members)!r:.200}")
                return {name: _array(archive, members[name]) for name in (*required, *optional) if name in members}
        except ValueError:
            raise
        except Exception as error:  # of a dozen kinds, from zipfile, zlib, NumPy and Python's tokenizer; OSError for a place
            raise ValueError(f"it is damaged: {error!r:.200}") from error


def _array(archive: Any, member: Any) -> Any:
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"compressed by method {member.compress_type}")
    if member.file_size > LARGEST:
        raise ValueError(f"an array of {member.file_size} bytes, above {LARGEST}")
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("an array of an unknown version")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in "iuf" or (fortran_order and len(shape) > 1):
            raise ValueError(f"an array of {dtype}, fortran_order={fortran_order}")
        size = member.file_size - file.tell()
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"an array of {dtype} and shape {shape} in {size} bytes")
        return np.frombuffer(file.read(), dtype).reshape(shape)
