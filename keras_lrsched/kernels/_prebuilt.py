"""Compiled libraries that came with the package (`make wheel`), for the framework versions that their manifest names.

A library is taken only for the exact version and build of the framework that it was linked with. It needs no compiler.
"""

import functools
import json
import platform
import sys
import warnings
from pathlib import Path

from keras_lrsched.kernels import _targets

FOLDER = Path(__file__).parents[1] / "_prebuilt"
MANIFEST = "manifest.json"

_given: list[str] = []
_refused: list[str] = []


def library(target, family):
    """The path of a library for the installed framework, which is imported, or `None`."""
    if _refused or not _rows():
        return None
    framework = _targets.framework(target)
    found = _find(target, family, framework.version, framework.build)
    if found is not None:
        _given.append(found.name)
    return found


def cached(target, family):
    """As `library`, by the version of the framework alone, which is not imported."""
    return None if _refused else _find(target, family, _targets.installed_version(target))


def refuse():
    """Use no prebuilt library any more in this process, since one does not load here; return whether any was used."""
    used = bool(_given)
    _refused.extend(_given)
    _given.clear()
    return used


@functools.cache
def _find(target, family, version, build=None):
    for row in _rows():
        if (row["target"], row["family"], row["version"]) == (target, family, version) and build in (None, row["build"]):
            return FOLDER / row["file"]
    return None


@functools.cache
def _rows():
    """The libraries of the manifest, if they are for this kind of machine."""
    try:
        manifest = json.loads((FOLDER / MANIFEST).read_text(encoding="utf-8"))
        rows = manifest["libraries"] if manifest["machine"] == machine() else []
        return [row for row in rows if {"file", "target", "family", "version", "build"} <= row.keys()]
    except OSError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"{FOLDER / MANIFEST} is damaged, and no library in it is used: {error!r}", stacklevel=2)
        return []


def machine():
    return f"{sys.platform}-{platform.machine()}"
