"""What MkDocs is told: the pages and files that are generated, and links to files of the repository."""

import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

import make_explorer_data  # noqa: E402
import make_fidelity  # noqa: E402
import make_measurements  # noqa: E402
import make_reference  # noqa: E402


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
    """Files of the repository that a page links to lie in the site, under files/."""

    def link(match):
        path = (FOLDER / page.file.src_uri).parent.joinpath(match[1]).resolve()
        inside = path.relative_to(FOLDER.parent).as_posix()
        if path.is_relative_to(FOLDER):
            return match[0]
        if files.get_file_from_path(f"files/{inside}") is None:
            files.append(File.generated(config, f"files/{inside}", content=path.read_bytes()))
        return f"]({'../' * page.file.src_uri.count('/')}files/{inside})"

    return re.sub(r"\]\((\.\./[^)#]+)\)", link, markdown)
