"""Checks a built site without network: every link within it leads somewhere, and nothing is loaded from elsewhere.

Run: python docs/check_links.py build/site
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src"}
REMOTE_IN_CSS = re.compile(r"url\(\s*[\"']?(?:https?:)?//|@import")


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loads = {"", "top"}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif given.get(LOADED.get(tag)) and given.get("rel") != "canonical":
            self.loads.append(given[LOADED[tag]])


def problems(site):
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for address in page.loads + page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loads and parts.scheme != "data":
                    yield f"{name} loads {address}"
                continue
            target = (site / parts.path.lstrip("/")) if parts.path.startswith("/") else path.parent / unquote(parts.path)
            target = (path if not parts.path else target).resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{name} links to {address}, which does not exist"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{name} links to {address}, where there is no such anchor"
    for path in sorted(site.rglob("*.css")):
        if REMOTE_IN_CSS.search(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)} loads something from elsewhere"


def main(folder):
    site = Path(folder).resolve()
    found = list(problems(site)) if site.is_dir() else [f"there is no site in {folder}"]
    print("\n".join(found) or f"{sum(1 for _ in site.rglob('*.html'))} pages, all links lead somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
