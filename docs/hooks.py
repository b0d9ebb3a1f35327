"""Additions of MkDocs to the pages of this folder: generated pages and files, links to files of the repository, pictures."""

import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

import excerpts  # noqa: E402
import make_explorer_data  # noqa: E402
import make_fidelity  # noqa: E402
import make_measurements  # noqa: E402
import make_reference  # noqa: E402

from keras_lrsched._core import registry  # noqa: E402


def on_config(config):
    """Each room in the navigation becomes its methods by kind."""
    rooms = {make_reference.address(room): room for room in make_reference.ROOMS}
    for part in config.nav:
        for name, some in part.items():
            if isinstance(some, list):
                part[name] = [
                    make_reference.nav(rooms[path]) if path in rooms else {text: path} for text, path in _items(some)
                ]
    return config


def on_files(files, config):
    generated = dict(make_reference.pages())
    generated["methods/fidelity.md"] = "\n".join(make_fidelity.page())
    generated["benchmarks/measurements.md"] = "\n".join(make_measurements.page())
    for name, content in make_explorer_data.files():
        generated[f"methods/explorer/data/{name}"] = content
    for name, content in generated.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri == "methods/gallery.md":
        markdown = with_pictures(markdown)
    return with_files(excerpts.inserted(markdown), page, config, files)


def with_files(markdown, page, config, files):
    """Files of the repository that a page links to lie in the site, under files/."""

    def link(match):
        path = (FOLDER / page.file.src_uri).parent.joinpath(match[1]).resolve()
        inside = path.relative_to(FOLDER.parent).as_posix()
        inside += ".txt" if path.suffix == ".md" else ""  # or MkDocs would take it for a page
        if path.is_relative_to(FOLDER):
            return match[0]
        if files.get_file_from_path(f"files/{inside}") is None:
            files.append(File.generated(config, f"files/{inside}", content=path.read_bytes()))
        return f"]({'../' * page.file.src_uri.count('/')}files/{inside})"

    return re.sub(r"\]\((\.\./[^)#]+)\)", link, markdown)


def with_pictures(markdown):
    """The gallery with a picture under each heading, which a phone can show, in place of the one with all of them."""
    drawn = {entry.name: make_reference.picture_of(entry) for entry in registry.entries("schedules") if entry.name}

    def below(match):
        return f'{match[0]}\n\n<div class="pictures">{drawn.get(match[1], "")}</div>'

    return re.sub(r"^## (\w+): .*$", below, re.sub(r"^!\[.*\]\(gallery.png\)$", "", markdown, flags=re.M), flags=re.M)


def _items(some):
    return [item for each in some for item in each.items()]
