"""The check of words finds what it is for, and nothing in code."""

import check_words
import pytest


@pytest.mark.parametrize("text", ["few bits", "the warning says", "It insists.", "fp4_msr2025"])
def test_words_are_found(text):
    assert list(check_words._words(check_words.ROOT / "page.md", text, 1))


def test_code_and_links_are_not_read():
    text = "`few bits` and [a page](few bits.md)\n```python\nfew bits\n```\n"
    assert not list(check_words._words(check_words.ROOT / "page.md", check_words.CODE.sub(check_words._blank, text), 1))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"""What it does."""\n', 1),
        ('def f():\n    """Which of them."""\n', 2),
        ('async def f():\n    """How it runs."""\n', 2),
        ('SIZE = 3\n"""How many there are."""\n', 2),
    ],
)
def test_openings_are_found(text, line, tmp_path, monkeypatch):
    monkeypatch.setattr(check_words, "ROOT", tmp_path)
    (tmp_path / "module.py").write_text(text, encoding="utf-8")
    (found,) = check_words._docstrings(tmp_path / "module.py")
    assert found.startswith(f"module.py:{line}: opens with")
