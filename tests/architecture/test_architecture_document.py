"""The contributor documents are up to date: generated sections, and every path and module that they name."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

from campaigns.db import Base
from tests.architecture import architecture_document

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "README.md")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_MODULE = re.compile(r"(?:campaigns|tracking|workers|tests)(?:\.\w+)+")
_FILE_NAME = re.compile(r"[\w-]+\.(?:py|md|toml|yaml|lock|html|css|js|po|mjml)")


@cache
def repository_paths() -> frozenset[str]:
    """The files under version control and the folders above them, relative to the root."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    files = [Path(name) for name in listing.stdout.split("\0") if name]
    return frozenset(str(path) for file in files for path in (file, *file.parents))


def code_words(document: str) -> Iterator[str]:
    """The words of inline code and of code blocks."""
    for block in _FENCE.findall(document):
        yield from block.split()
    for code in _CODE.findall(_FENCE.sub("", document)):
        yield from code.split()


def missing(word: str) -> bool:
    """Whether a word is a path or module of the repository that does not exist. Placeholders (``<name>``) are none."""
    word = word.strip("\"'(),;:").split("::")[0]
    if re.search(r"[<>{}$=*…]", word) or word.startswith(("/", "http:", "https:")):
        return False
    if _MODULE.fullmatch(word) and not _FILE_NAME.fullmatch(word):
        path = word.replace(".", "/")
        # A package or module, or a name in a module, or an attribute of a class.
        modules = (path, path.rpartition("/")[0], path.rpartition("/")[0].rpartition("/")[0])
        return path not in repository_paths() and not any(f"{one}.py" in repository_paths() for one in modules)
    if "/" in word:
        top_level = {path for path in repository_paths() if "/" not in path}
        return word.partition("/")[0] in top_level and word.rstrip("/") not in repository_paths()
    return bool(_FILE_NAME.fullmatch(word)) and all(Path(path).name != word for path in repository_paths())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_named_path_exists(name: str) -> None:
    document = (ROOT / name).read_text()
    assert sorted({word for word in code_words(document) if missing(word)}) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_to_a_file(name: str) -> None:
    targets = [target for target in _LINK.findall((ROOT / name).read_text()) if "://" not in target]
    assert [target for target in targets if target not in repository_paths()] == []


@pytest.mark.parametrize(
    "word",
    ["campaigns/nowhere.py", "tests/nowhere/", "campaigns.nowhere.module", "nowhere.py", "tracking.models.nowhere"],
)
def test_a_missing_path_is_found(word: str) -> None:
    assert missing(word)


def test_generated_sections_are_up_to_date() -> None:
    document = architecture_document.DOCUMENT.read_text()
    assert architecture_document.with_generated_sections(document) == document, "run `make architecture`"


def test_every_table_is_described() -> None:
    section = architecture_document.tables_section()
    assert [name for name in Base.metadata.tables if f"- `{name}` (" not in section] == []
    undocumented = [mapper.class_.__name__ for mapper in Base.registry.mappers if not mapper.class_.__doc__]
    assert undocumented == []


def upward_imports() -> set[tuple[str, str]]:
    """(module, module) for each import of the web layer of ``campaigns`` that points to a higher package."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["name"] == "Layers of campaigns")
    rank = {name: -place for place, layer in enumerate(layers) for name in layer.split(" | ")}
    graph = grimp.build_graph("campaigns")
    imports = {
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if importer.count(".") and imported.count(".")
    }
    package = {module: module.split(".")[1] for pair in imports for module in pair}
    return {
        (importer, imported)
        for importer, imported in imports
        if rank[package[importer]] < rank[package[imported]] and package[imported] != "web"
    }


def test_every_upward_import_is_explained() -> None:
    document = architecture_document.DOCUMENT.read_text()
    section = document.partition("### The web layer")[2].partition("###")[0]
    found = upward_imports()
    assert found
    assert [pair for pair in found if f"`{pair[0].replace('.', '/')}.py`" not in section] == []


def test_every_package_is_described() -> None:
    undescribed = [line for line in architecture_document.packages_section().splitlines() if line.endswith(": ")]
    assert undescribed == []
