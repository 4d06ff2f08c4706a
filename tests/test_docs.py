"""README, CONTRIBUTING and docs/: what they point to is there."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sparsecompile.commands.app import app

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = (README, ROOT / "CONTRIBUTING.md", *DOCS)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in FENCE.findall(page.read_text()) if name == language]


def links(page: Path) -> list[tuple[Path, str]]:
    """Files of this repository, and places in them."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    parts = [link.partition("#") for link in found if not re.match(r"\w+:", link)]
    return [((page.parent / path).resolve() if path else page, name) for path, _, name in parts]


def anchors(page: Path) -> list[str]:
    """What headings are called in links."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]


def names(block: str) -> Iterator[tuple[str, str]]:
    """Modules of ours and what is used of them, as written by hand: `sc` is the package."""
    for node in ast.walk(ast.parse(block)):
        match node:
            case ast.ImportFrom(module=str(module)) if module.startswith("sparsecompile"):
                yield from ((module, alias.name) for alias in node.names)
            case ast.Attribute(value=ast.Name(id="sc" | "sparsecompile"), attr=name):
                yield "sparsecompile", name


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `sparsecompile` of every command line."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    spans = re.findall(r"`(sparsecompile\s[^`]+)`", prose(page))
    for line in lines + spans:
        words = shlex.split(line, comments=True)
        if "sparsecompile" in words:
            yield words[words.index("sparsecompile") + 1 :]


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for path, name in links(page):
        assert path.exists(), f"{page.name} links {path}"
        assert not name or name in anchors(path), f"{page.name} links #{name} of {path.name}"


def test_the_readme_leads_to_every_page() -> None:
    linked = {path for path, _ in links(README)}
    assert not [page.name for page in DOCS if page not in linked]


def test_the_readme_is_read_whole() -> None:
    assert len(README.read_text().splitlines()) <= 200


@each_page
def test_python_compiles_and_finds_its_names(page: Path) -> None:
    for block in blocks(page, "python"):
        for module, name in names(block):
            assert hasattr(import_module(module), name), f"{page.name}: {module}.{name}"


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        first = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
        # All words are parsed before help is shown in place of a run.
        result = CliRunner().invoke(app, [*words[:first], "--help", *words[first:]])
        assert result.exit_code == 0, f"{page.name}: {words}: {result.output}"


def test_what_is_looked_at_is_found() -> None:
    """The expressions above find links, code and commands at all."""
    assert (ROOT / "docs" / "measure.md", "one-linear-amx") in links(README)
    assert ["tune", "clear"] in list(commands(README))
    assert any("--rounds" in words for words in commands(README))
    assert ("sparsecompile", "explain") in [n for b in blocks(README, "python") for n in names(b)]
