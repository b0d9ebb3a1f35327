"""The packages, the command's module, the project URLs, and compiled libraries for a wheel; all else is in setup.cfg."""

import os
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

SOURCES = ["keras_lrsched._sources.ops", "keras_lrsched._sources.custom_ops_cuda"]
REPOSITORY = runpy.run_path(str(Path(__file__).parent / "keras_lrsched" / "version.py"))["REPOSITORY"]
PAGES = {"Source": "", "Changelog": "/blob/main/CHANGELOG.md", "Issues": "/issues"}
PREBUILT = os.environ.get("KERAS_LRSCHED_PREBUILT")
"""The folder that release/make_prebuilt.py has written, whose libraries the wheel contains."""


class BuildPy(build_py):
    def run(self):
        super().run()
        if PREBUILT and not self.editable_mode:
            shutil.copytree(PREBUILT, Path(self.build_lib, "keras_lrsched", "_prebuilt"), dirs_exist_ok=True)


class BdistWheel(bdist_wheel):
    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = not PREBUILT

    def get_tag(self):
        """The libraries do not depend on the version of Python."""
        tag = super().get_tag()
        return ("py3", "none", tag[2]) if PREBUILT else tag


setup(
    py_modules=["keras_lrsched_command"],
    packages=[*find_packages(include=["keras_lrsched*"]), *SOURCES],
    project_urls={name: REPOSITORY + path for name, path in PAGES.items() if REPOSITORY},
    cmdclass={"build_py": BuildPy, "bdist_wheel": BdistWheel},
)
