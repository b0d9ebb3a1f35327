"""Checks what is going to be uploaded: the sdist holds sources only, the wheel the libraries of its manifest.

Run: python release/check_dist.py dist
"""

import json
import sys
import tarfile
import zipfile
from pathlib import Path

COMPILED = (".so", ".o", ".a", ".pyd", ".dylib", ".pyc")


def check_sdist(path):
    with tarfile.open(path) as archive:
        names = archive.getnames()
    compiled = [name for name in names if name.endswith(COMPILED) or "/_prebuilt/" in name]
    assert not compiled, f"{path} holds compiled files: {compiled}"
    for wanted in ("ops/kernels/update.h", "custom_ops_cuda/update.cu", "keras_lrsched/py.typed", "README.md", "LICENSE"):
        assert any(name.endswith(f"/{wanted}") for name in names), f"{path} lacks {wanted}"
    print(f"{path.name}: {len(names)} files, {path.stat().st_size / 1e6:.1f} MB")


def check_wheel(path):
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        folder = "keras_lrsched/_prebuilt"
        manifest = json.loads(archive.read(f"{folder}/manifest.json"))
    listed = {f"{folder}/{row['file']}" for row in manifest["libraries"]}
    assert listed == {name for name in names if name.endswith(".so")}, "the manifest and the libraries differ"
    for wanted in ("_sources/ops/kernels/update.h", "_sources/custom_ops_cuda/update.cu", "py.typed"):
        assert f"keras_lrsched/{wanted}" in names, f"{path} lacks {wanted}"
    assert "linux_x86_64" not in path.name.split("-")[-1].replace("manylinux", ""), f"{path} has no manylinux tag"
    versions = sorted({f"{row['target']} {row['version']}".strip() for row in manifest["libraries"]})
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB; {', '.join(versions)}")


def main():
    folder = Path(sys.argv[1])
    for path in folder.glob("*.tar.gz"):
        check_sdist(path)
    for path in folder.glob("*.whl"):
        check_wheel(path)


if __name__ == "__main__":
    main()
