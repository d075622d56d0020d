"""What MkDocs does beside turning Markdown into pages: tables of results, pictures of the gallery, and `llms.txt`.

Links to files of `benchmarks/results` are true paths of the repository, so that they work there too; in the site they
lead to copies.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import gallery_pages
import result_tables
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from openings import opening

RESULT = re.compile(r"\]\((?:\.\./)+benchmarks/results/([\w.-]+)\)")
CONTRIBUTING = "<!-- file: CONTRIBUTING.md -->"  # GitHub wants it in the root
REFERENCE = "reference/"  # pages that are made from docstrings: their Markdown says little
_sources: dict[str, str] = {}  # the Markdown of each page, tables included, by its path
_sections: list[Any] = []  # of the navigation


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pictures of the gallery, and the results that pages link to."""
    linked = {name for file in files.documentation_pages() for name in RESULT.findall(file.content_string)}
    for name in sorted(linked):
        path = result_tables.RESULTS / name
        if not path.is_file():
            raise PluginError(f"a page links to benchmarks/results/{name}, which is not there")
        files.append(File.generated(config, f"results/{name}", content=path.read_bytes()))
    for name, content in gallery_pages.pictures().items():
        files.append(File.generated(config, name, content=content))
    return files


def on_nav(nav: Any, *, config: Any, files: Any) -> Any:
    """Keep the navigation, from which `llms.txt` is made."""
    _sections[:] = nav.items
    return nav


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Put tables and pictures where a page asks for them, and let links to results lead to their copies."""
    here = posixpath.dirname(page.file.src_uri) or "."
    markdown = markdown.replace(CONTRIBUTING, (result_tables.ROOT / "CONTRIBUTING.md").read_text())
    try:
        markdown = gallery_pages.fill(result_tables.fill(markdown))
    except ValueError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error
    markdown = RESULT.sub(lambda found: f"]({posixpath.relpath('results', here)}/{found[1]})", markdown)
    _sources[page.file.src_uri] = markdown
    return markdown


def on_post_build(*, config: Any) -> None:
    """Write the Markdown of each page beside it, and `llms.txt`: what augkit is, and all pages with what they say."""
    site = Path(config.site_dir)
    for name, markdown in _sources.items():
        if not name.startswith(REFERENCE):
            (site / name).write_text(markdown, encoding="utf-8")
    lines = [f"# {config.site_name}", "", f"> {config.site_description}.", ""]
    for section in _sections:
        lines += [f"## {section.title}", "", *map(_line, _pages(section)), ""]
    (site / "llms.txt").write_text("\n".join(lines), encoding="utf-8")


def _pages(item: Any) -> list[Any]:
    return [page for child in item.children for page in _pages(child)] if item.children else [item]


def _line(page: Any) -> str:
    source = page.file.src_uri
    where = page.file.dest_uri if source.startswith(REFERENCE) else source
    said = opening(_sources[source])
    return f"- [{page.title}]({where})" + (f": {said}" if said else "")
