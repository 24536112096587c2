"""Every compiled module has a test file of its own, in the place that mirrors its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.relative_to(ROOT / "uspcap") for path in (ROOT / "uspcap").rglob("*.pyx"))


def mirrored(module: Path) -> Path:
    """Return where the tests of a module are: uspcap/a/b.pyx is tested in tests/a/test_b.py."""
    return ROOT / "tests" / module.parent / f"test_{module.stem}.py"


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, and what it imports from packages, by their dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def test_there_are_compiled_modules() -> None:
    assert MODULES


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_compiled_module_has_its_mirrored_tests_which_import_it(module: Path) -> None:
    tests = mirrored(module)
    assert tests.is_file(), f"{tests.relative_to(ROOT)} is missing"
    assert ".".join(("uspcap", *module.with_suffix("").parts)) in imported(tests)
