"""The packages, the command's module, the project URLs, and compiled libraries for a wheel; all else is in setup.cfg."""

import os
import re
import runpy
import shutil
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

SOURCES = ["keras_lrsched._sources.ops", "keras_lrsched._sources.custom_ops_cuda"]
FOLDER = Path(__file__).parent
REPOSITORY = runpy.run_path(str(FOLDER / "keras_lrsched" / "version.py"))["REPOSITORY"]
PAGES = {"Source": "", "Changelog": "/blob/main/CHANGELOG.md", "Issues": "/issues"}
PREBUILT = os.environ.get("KERAS_LRSCHED_PREBUILT")
"""The folder that release/make_prebuilt.py has written, whose libraries the wheel contains."""


class BuildPy(build_py):
    def run(self):
        super().run()
        if PREBUILT and not self.editable_mode:
            shutil.copytree(PREBUILT, Path(self.build_lib, "keras_lrsched", "_prebuilt"), dirs_exist_ok=True)


class Platform(Distribution):
    def has_ext_modules(self):
        return bool(PREBUILT)


class BdistWheel(bdist_wheel):
    def get_tag(self):
        """The libraries do not depend on the version of Python."""
        tag = super().get_tag()
        return ("py3", "none", tag[2]) if PREBUILT else tag


def long_description():
    """The README for a package index, which has no files beside it: links and pictures become absolute."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    if not REPOSITORY:
        return text
    pictures = REPOSITORY.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\1{pictures}", text)
    return re.sub(r"(\]\()(?!https?:|#)", rf"\1{REPOSITORY}/blob/main/", text)


setup(
    long_description=long_description(),
    long_description_content_type="text/markdown",
    py_modules=["keras_lrsched_command"],
    packages=[*find_packages(include=["keras_lrsched*"]), *SOURCES],
    project_urls={name: REPOSITORY + path for name, path in PAGES.items() if REPOSITORY},
    distclass=Platform,
    cmdclass={"build_py": BuildPy, "bdist_wheel": BdistWheel},
)
