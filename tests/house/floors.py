"""Contracts for import-linter: the floors of the house, configured in pyproject.toml."""

from collections.abc import Iterator

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

Breach = tuple[str, str, str]


def _parts_match(pattern: list[str], module: list[str]) -> bool:
    return len(pattern) <= len(module) and all(p in ("*", m) for p, m in zip(pattern, module, strict=False))


def exactness(pattern: str, module: str) -> tuple[int, int]:
    """How exactly a pattern names a module or something above it; (0, 0) when it doesn't."""
    parts = pattern.split(".")
    if not _parts_match(parts, module.split(".")):
        return 0, 0
    return len(parts), sum(part != "*" for part in parts)


def room(module: str, pattern: str) -> str:
    """What the pattern stands for in this module's name: `campaigns.*.views` → `campaigns.leads.views`."""
    return ".".join(module.split(".")[: len(pattern.split("."))])


def _located(graph: ImportGraph, module: str) -> Iterator[tuple[str, str]]:
    for imported in sorted(graph.find_modules_directly_imported_by(module)):
        for detail in graph.get_import_details(importer=module, imported=imported):
            yield imported, f"line {detail['line_number']}"


class FloorsContract(Contract):
    """A module imports only from its own room or from lower floors; every module has a floor."""

    type_name = "floors"
    floors = fields.ListField(subfield=fields.StringField())
    within = fields.StringField(required=False, default="")

    def place(self, module: str) -> tuple[int, str] | None:
        """The floor and the room of a module."""
        lines: list[str] = self.floors  # type: ignore[assignment]
        candidates = [
            (exactness(pattern, module), floor, pattern) for floor, line in enumerate(lines) for pattern in line.split()
        ]
        best, floor, pattern = max(candidates)
        return (floor, room(module, pattern)) if best > (0, 0) else None

    def breaches(self, graph: ImportGraph) -> Iterator[Breach]:
        inside = str(self.within or "")
        for module in sorted(graph.modules):
            if graph.is_module_squashed(module) or not module.startswith(inside):
                continue
            if "." not in module and graph.find_children(module):
                continue  # A package's own docstring has no floor.
            if (here := self.place(module)) is None:
                if not inside:
                    yield module, "", "has no floor in pyproject.toml"
                continue
            for imported, where in _located(graph, module):
                there = self.place(imported)
                if there and there != here and there[0] >= here[0]:
                    yield module, imported, where

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        found = list(self.breaches(graph))
        return ContractCheck(kept=not found, metadata={"breaches": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for module, imported, where in check.metadata["breaches"]:
            output.print_error(f"- {module} -> {imported} ({where})" if imported else f"- {module} {where}")
        output.new_line()


class OutsidersContract(Contract):
    """Only the named modules import a library directly."""

    type_name = "outsiders"
    allowed = fields.ListField(subfield=fields.StringField())

    def breaches(self, graph: ImportGraph) -> Iterator[Breach]:
        lines: list[str] = self.allowed  # type: ignore[assignment]
        for line in lines:
            library, _, places = line.partition(":")
            for module in sorted(graph.modules):
                if graph.is_module_squashed(module) or any(exactness(p, module) > (0, 0) for p in places.split()):
                    continue
                for imported, where in _located(graph, module):
                    if imported.split(".")[0] in {library, f"{library}_wtf", f"{library}_login", f"{library}_babel"}:
                        yield module, imported, where

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        found = list(self.breaches(graph))
        return ContractCheck(kept=not found, metadata={"breaches": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for module, imported, where in check.metadata["breaches"]:
            output.print_error(f"- {module} imports {imported} ({where})")
        output.new_line()
