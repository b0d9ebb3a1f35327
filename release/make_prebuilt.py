"""Compiles the libraries that a wheel contains, with the frameworks of this environment, and adds them to a folder.

What the folder has for other versions of a framework stays, so that a wheel may serve several: run it once in each of
their environments. Libraries choose the instruction set when they are loaded. The C++ runtime is linked dynamically, since
a static one would need the newest C library.

Run: python release/make_prebuilt.py build/prebuilt
"""

import argparse
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

from keras_lrsched.kernels import _build, _prebuilt, _targets

TARGETS = {"core": None, "jax": "jax", "tensorflow": "tensorflow", "tensorflow_xla": "tensorflow"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="build/prebuilt")
    parser.add_argument("--allow-missing", action="store_true", help="leave out what a framework lacks headers for")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / _prebuilt.MANIFEST
    rows = json.loads(file.read_text(encoding="utf-8"))["libraries"] if file.exists() else []
    for family in _targets.FAMILIES:
        with tempfile.TemporaryDirectory() as objects:
            for target, module in TARGETS.items():
                if module is not None and importlib.util.find_spec(module) is None:
                    continue
                try:
                    made = add(target, family, folder, Path(objects))
                except _build.BuildError as error:
                    if not arguments.allow_missing:
                        raise
                    print(f"{family}, {target}: left out. {error}", flush=True)
                    continue
                rows = [row for row in rows if row["file"] != made["file"]] + [made]
                manifest = {"machine": _prebuilt.machine(), "libraries": rows}
                file.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def add(target, family, folder, objects):
    """Compiles a library into the folder, and returns its row of the manifest."""
    _build.build(target, family, objects, ("-s",))
    framework = _targets.framework(target)
    name = f"{family}_{target}{f'-{framework.version}' if framework.version else ''}.so"
    shutil.copy(objects / "library.so", folder / name)
    (folder / name).chmod(0o644)
    print(f"{name}: {(folder / name).stat().st_size / 1e6:.1f} MB", flush=True)
    return {"file": name, "target": target, "family": family, "version": framework.version, "build": framework.build}


if __name__ == "__main__":
    main()
