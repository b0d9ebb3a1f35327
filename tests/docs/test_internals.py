"""The pages on internals name files and symbols that exist."""

import re
from pathlib import Path

import excerpts
import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "internals").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_exist(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing
    for name, link in re.findall(r"\[`([^`]+)`\]\(([^)]+)\)", text):
        assert link.endswith(name) or (page.parent / link).parent.name in name, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_excerpts_are_short(page):
    for file, symbol in excerpts.MARK.findall(page.read_text(encoding="utf-8")):
        assert 1 < len(excerpts.excerpt(file, symbol)) <= 20, (file, symbol)


def test_journeys_are_numbered_without_a_gap():
    text = (ROOT / "docs" / "internals" / "architecture.md").read_text(encoding="utf-8")
    journeys = [re.findall(r"^\| (\d+) \| \[", part, flags=re.M) for part in text.split("\n## ")[1:]]
    assert len(journeys) == 4
    assert all(list(map(int, numbers)) == list(range(1, len(numbers) + 1)) for numbers in journeys)
