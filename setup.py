"""The packages, the command's module, the project URLs; all else is in setup.cfg."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

SOURCES = ["keras_lrsched._sources.ops", "keras_lrsched._sources.custom_ops_cuda"]
REPOSITORY = runpy.run_path(str(Path(__file__).parent / "keras_lrsched" / "version.py"))["REPOSITORY"]
PAGES = {"Source": "", "Changelog": "/blob/main/CHANGELOG.md", "Issues": "/issues"}

setup(
    py_modules=["keras_lrsched_command"],
    packages=[*find_packages(include=["keras_lrsched*"]), *SOURCES],
    project_urls={name: REPOSITORY + path for name, path in PAGES.items() if REPOSITORY},
)
