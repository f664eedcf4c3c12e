"""The generated sections of ARCHITECTURE.md: layers, packages and tables.

``python -m tests.architecture.architecture_document`` (``make architecture``) rewrites them.
"""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Table

from campaigns.db import Base
from tracking import registration

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "ARCHITECTURE.md"
_ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")


def first_sentence(docstring: str | None) -> str:
    """The first sentence of a docstring as Markdown on one line; "" without one."""
    paragraph = (docstring or "").strip().split("\n\n")[0]
    sentence = _SENTENCE_END.split(" ".join(paragraph.split()))[0]
    return _ROLE.sub(r"`\1`", sentence).replace("``", "`")


def layers_section() -> str:
    """The layers of each contract of type "layers" in pyproject.toml, highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return "\n\n".join(_layers_of(contract) for contract in contracts if contract["type"] == "layers")


def _layers_of(contract: Mapping[str, Any]) -> str:
    container = "".join(f"`{name}`, " for name in contract.get("containers", ())) or "The repository, "
    layers = "\n".join(contract["layers"])
    return f"{container}highest layer first:\n\n```\n{layers}\n```"


def packages_section() -> str:
    """Every package with the first sentence of its docstring, indented by its depth."""
    return "\n".join(_package_lines())


def _package_lines() -> Iterator[str]:
    for top in ("campaigns", "tracking", "workers"):
        for path in sorted((ROOT / top).rglob("__init__.py")):
            folder = path.parent.relative_to(ROOT)
            sentence = first_sentence(ast.get_docstring(ast.parse(path.read_text())))
            yield f"{'  ' * (len(folder.parts) - 1)}- `{folder}/`: {sentence}"


def tables_section() -> str:
    """Every table with its class, the first sentence of its docstring and its foreign keys, grouped by module."""
    return "\n\n".join(_tables_of(module.__name__) for module in registration.MODULES_WITH_TABLES)


def _tables_of(module: str) -> str:
    mappers = [mapper for mapper in Base.registry.mappers if mapper.class_.__module__ == module]
    lines = []
    for mapper in sorted(mappers, key=lambda mapper: str(mapper.local_table)):
        table = mapper.local_table
        assert isinstance(table, Table)
        keys = ", ".join(f"{key.parent.name} → {key.column.table.name}" for key in _foreign_keys(table))
        lines.append(
            f"- `{table.name}` (`{mapper.class_.__name__}`): {first_sentence(mapper.class_.__doc__)}"
            + (f" *{keys}*" if keys else "")
        )
    return "\n".join([f"`{module.replace('.', '/')}.py`", "", *lines])


def _foreign_keys(table: Table) -> list[Any]:
    return sorted(table.foreign_keys, key=lambda key: list(table.columns).index(key.parent))


SECTIONS: Mapping[str, Callable[[], str]] = {
    "layers": layers_section,
    "packages": packages_section,
    "tables": tables_section,
}
"""Section name → function that generates the text between ``<!-- name -->`` and ``<!-- /name -->``."""


def with_generated_sections(document: str) -> str:
    """``document`` with its generated sections replaced. Raises ValueError when a marker is missing."""
    for name, generate in SECTIONS.items():
        before, opening, rest = document.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"<!-- /{name} -->\n")
        if not opening or not closing:
            raise ValueError(f"the markers of {name} are missing")
        document = f"{before}{opening}\n{generate()}\n\n{closing}{after}"
    return document


if __name__ == "__main__":
    DOCUMENT.write_text(with_generated_sections(DOCUMENT.read_text()))
