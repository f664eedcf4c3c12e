"""File layout and names: the top level, the last words of classes and modules, no metaphors.

The words are defined in ``glossary.toml``.
"""

import ast
import builtins
import re
import subprocess
import tokenize
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {
    *("campaigns", "templates", "tracking", "workers", "tests", "wsgi.py", "pyproject.toml", "README.md"),
    # Names that tools, readers and licences require
    *(".ci", ".dockerignore", ".gitignore", "CHANGELOG.md", "Dockerfile", "LICENSE", "Makefile", "compose.yaml"),
    *("requirements.lock", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"),
    *(".editorconfig", ".pre-commit-config.yaml"),
}


def tracked() -> list[Path]:
    """The files under version control; skips in an unpacked archive."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [Path(name) for name in listing.stdout.split("\0") if name]


def python_files() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py" and "versions" not in path.parts]


def test_only_listed_names_at_the_top_level() -> None:
    assert {path.parts[0] for path in tracked()} <= TOP_LEVEL


def test_templates_hold_no_python() -> None:
    assert [str(path) for path in tracked() if path.parts[0] == "templates" and path.suffix == ".py"] == []


def test_no_package_is_empty() -> None:
    """A package is created together with its first module."""
    packages = {path.parent for path in python_files() if path.parts[0] in ("campaigns", "tracking", "workers")}
    empty = [
        str(folder)
        for folder in packages
        if not any(path.parent == folder and path.name != "__init__.py" for path in python_files())
        and not (ROOT / folder / "__init__.py").read_text().strip()
    ]
    assert empty == []


PRODUCT = ("campaigns", "tracking", "workers", "wsgi.py")
GLOSSARY = tomllib.loads((Path(__file__).parent / "glossary.toml").read_text())
EMPTY_STEMS = {"shape", "words", "lines", "quick", "once", "common", "misc", "util", "utils"}


@cache
def syntax_trees() -> dict[str, ast.Module]:
    """The parsed product code by path."""
    paths = [path for path in python_files() if path.parts[0] in PRODUCT]
    return {str(path): ast.parse((ROOT / path).read_text()) for path in paths}


def class_names() -> list[str]:
    return [node.name for tree in syntax_trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def module_names() -> list[str]:
    """Names of modules and packages."""
    return [
        Path(path).parent.name if Path(path).stem.startswith("__") else Path(path).stem
        for path in syntax_trees()
        if path != "wsgi.py"
    ]


def words_of(name: str) -> list[str]:
    """The words of a CamelCase or snake_case name in lower case; version numbers are left out."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+(?:\d+[a-z]+)?", name)]


def singulars(word: str) -> set[str]:
    """The word, and what it may be the plural of."""
    stems = {word}
    if word.endswith("ies"):
        stems.add(word[:-3] + "y")
    if word.endswith("es"):
        stems.add(word[:-2])
    if word.endswith("s"):
        stems.add(word[:-1])
    return stems


def test_plural_and_singular() -> None:
    assert words_of("_HTTPRetryCounts") == ["http", "retry", "counts"]
    assert words_of("from_0_1") == ["from"]
    assert words_of("i18n") == ["i18n"]
    assert {"query", "address", "link"} <= singulars("queries") | singulars("addresses") | singulars("links")


@pytest.mark.parametrize(
    ("names", "sections"),
    [(class_names, ["classes"]), (module_names, ["modules", "classes"])],
    ids=["classes", "modules"],
)
def test_last_words_are_in_the_glossary(names: Callable[[], list[str]], sections: list[str]) -> None:
    """A new last word needs a line in glossary.toml; an unused one is removed from it."""
    known = {*GLOSSARY["standard"], *(word for section in sections for word in GLOSSARY[section])}
    used = {name: singulars(words_of(name)[-1]) for name in names()}
    assert sorted(name for name, stems in used.items() if not stems & known) == [], "not in glossary.toml"
    unused = GLOSSARY[sections[0]].keys() - {stem for stems in used.values() for stem in stems}
    assert sorted(unused) == [], "in glossary.toml, but no name ends with it"


def test_glossary_entries_have_one_meaning() -> None:
    for section in ("classes", "modules"):
        assert [word for word, meaning in GLOSSARY[section].items() if not meaning.strip()] == []
        assert list(GLOSSARY[section]) == sorted(GLOSSARY[section])
    assert GLOSSARY["classes"].keys() & GLOSSARY["modules"].keys() == set(), "modules may use the words of classes"
    assert set(GLOSSARY["standard"]) & {*GLOSSARY["classes"], *GLOSSARY["modules"]} == set()


def test_no_class_name_is_used_twice() -> None:
    assert [name for name, times in Counter(class_names()).items() if times > 1] == []


def test_module_names_say_something() -> None:
    assert EMPTY_STEMS & set(module_names()) == set()


def test_exceptions_are_named_alike() -> None:
    """Error, an HTTP status, or a noun with what happened to it."""
    endings = ("Error", "Conflict", "Failed", "Forbidden", "Limited", "Lost", "NotFound", "Refused", "Rejected")
    others = [name for name in exception_names() if not name.endswith((*endings, "Unauthorized", "Unavailable"))]
    assert others == []


def exception_names() -> set[str]:
    """Names of the exception classes of product code: those that inherit, directly or not, from a built-in one."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in syntax_trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {name for name in vars(builtins) if name.endswith(("Error", "Exception"))} | {"CommandError"}
    while new := {name for name, names in bases.items() if names & found} - found:
        found |= new
    return found & bases.keys()


def metaphors_in(path: str, words: Iterable[str], metaphors: Iterable[str]) -> set[str]:
    allowed = GLOSSARY["metaphors"]["exceptions"].get(path, [])
    return {word for word in words if singulars(word) & set(metaphors) - set(allowed)}


def defined_names(tree: ast.Module) -> set[str]:
    """The names of classes, functions, parameters, attributes, variables and import aliases that a module defines."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                found.add(name)
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                found.add(name)
    return found


def prose_of(path: str) -> str:
    """Docstrings (also those of attributes) and comments of a module."""
    docstrings = [
        node.value.value
        for node in ast.walk(syntax_trees()[path])
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    with (ROOT / path).open("rb") as file:
        comments = [token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
    return "\n".join(docstrings + comments)


def test_names_are_no_metaphors() -> None:
    everywhere, names = GLOSSARY["metaphors"]["everywhere"], GLOSSARY["metaphors"]["names"]
    found = {
        f"{path}: {name}"
        for path, tree in syntax_trees().items()
        for name in {*defined_names(tree), *Path(path).with_suffix("").parts}
        if metaphors_in(path, words_of(name), everywhere + names)
    }
    assert sorted(found) == []


def test_prose_has_no_metaphors() -> None:
    found = {
        path: sorted(words)
        for path in syntax_trees()
        if (words := metaphors_in(path, words_of(prose_of(path)), GLOSSARY["metaphors"]["everywhere"]))
    }
    assert found == {}


def test_exceptions_from_metaphors_are_needed() -> None:
    for path, words in GLOSSARY["metaphors"]["exceptions"].items():
        used = words_of(prose_of(path)) + [
            word for name in defined_names(syntax_trees()[path]) for word in words_of(name)
        ]
        assert set(words) <= {stem for word in used for stem in singulars(word)}, path


QUESTION_WORD = re.compile(r"(What|Who|Whoever|Whose|How|Where|When|Why)\b")


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    """No docstring begins with a question word; those of modules and classes not with "Whether" either."""
    found = []
    for path in python_files():
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                is_riddle = QUESTION_WORD.match(text) or (
                    text.startswith("Whether") and isinstance(node, ast.Module | ast.ClassDef)
                )
                if is_riddle:
                    found.append(f"{path}: {text.splitlines()[0]}")
    assert found == []


def test_module_docstrings_are_noun_phrases() -> None:
    """The first line is a phrase that does not begin with a pronoun or a conjunction; every module has one."""
    pronoun = re.compile(r"(It|They|We|You|This|That|These|Those|If|Because|Since|So)\b")
    for path, tree in syntax_trees().items():
        if tree.body:
            first = (ast.get_docstring(tree) or "").partition("\n")[0]
            assert first, path
            assert not pronoun.match(first), path


def test_log_events_are_named() -> None:
    """``noun.verb_past``: dotted, without spaces, so that logs can be filtered by them."""
    events = {
        node.args[0].value
        for tree in syntax_trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(events) > 10
    assert [event for event in events if not re.fullmatch(r"[a-z_]+\.[a-z_]+", str(event))] == []


def test_templates_and_static_files_have_no_metaphors() -> None:
    """Variables, macros and comments of templates, classes and ids; identifiers and comments of scripts and styles."""
    metaphors = {*GLOSSARY["metaphors"]["everywhere"], *GLOSSARY["metaphors"]["names"]}
    metaphors -= {"slice", "shift"}  # JavaScript's own
    found = {}
    for path in tracked():
        source = (ROOT / path).read_text() if path.suffix in (".html", ".css", ".js") else ""
        if path.parts[0] == "templates":
            code = _template_code(source)
        elif path.parent == Path("campaigns/web/static"):
            code = re.sub(r'"[^"\n]*"|url\([^)]*\)|@font-face|letter-spacing', "", source)
        else:
            continue
        words = {word for word in words_of(code.replace("dead_letters", "")) if singulars(word) & metaphors}
        if words:
            found[str(path)] = words
    assert found == {}


def _template_code(source: str) -> str:
    """The names in a template: Jinja code without its strings, classes and ids."""
    string = re.compile(r'"(?:[^"\\]|\\.)*"|(?<!\w)\'(?:[^\'\\]|\\.)*\'')
    tags = re.findall(r"{[{%#].*?[}%#]}", source, re.DOTALL)
    names = re.findall(r'\b(?:class|id)="([^"]*)"', source)
    return string.sub("", "\n".join(tags + names))
