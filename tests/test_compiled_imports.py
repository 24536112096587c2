"""Imports of compiled modules, which import-linter does not read, run downward as those of Python do."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
LAYERS = next(contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
LAYER_OF = {package.strip(): number for number, layer in enumerate(LAYERS) for package in layer.split("|")}


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imports_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^\s*from (uspcap[\w.]*) c?import ", text, re.MULTILINE)


def compiled_imports() -> list[tuple[str, str]]:
    return [
        (".".join(path.relative_to(ROOT).with_suffix("").parts), imported)
        for path in sorted((ROOT / "uspcap").rglob("*.p[yx][xd]"))
        for imported in imports_of(path)
    ]


def test_declarations_are_taken_by_one_kind_of_statement_which_the_build_reads_too() -> None:
    """`tools/cythonize.py` decides by these statements what is made again."""
    others = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in sorted((ROOT / "uspcap").rglob("*.p[yx][xd]"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(from \S+ )?cimport\b", line)
        and not re.match(r"(from (libc|posix|cpython|cython|uspcap)[\w.]* cimport |cimport cython$)", line)
    ]
    assert not others
    assert len(compiled_imports()) > 200


def test_compiled_modules_import_downward() -> None:
    upward = [
        f"{module} imports {imported}"
        for module, imported in compiled_imports()
        if package_of(module) != package_of(imported) and LAYER_OF[package_of(module)] >= LAYER_OF[package_of(imported)]
    ]
    assert not upward


def test_no_compiled_module_imports_itself_by_way_of_others() -> None:
    imported_by: dict[str, set[str]] = {}
    for module, imported in compiled_imports():
        if module != imported:
            imported_by.setdefault(module, set()).add(imported)

    def reached(module: str, seen: frozenset[str]) -> bool:
        return any(
            other in seen or reached(other, seen | {other}) for other in imported_by.get(module, ()) if other != module
        )

    assert not [module for module in imported_by if reached(module, frozenset({module}))]
