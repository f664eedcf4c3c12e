"""File layout: the top level, the templates, and no empty packages."""

import subprocess
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
