"""The registry of output formats: names without loading, errors of packages that are not ours in one sentence."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import uspcap
from uspcap.entry_points import EntryPoint
from uspcap.errors import MissingFeature
from uspcap.report.renderers import registry
from uspcap.report.renderers.base import Renderer, TableRenderer

ROOT = Path(__file__).parents[3]
OURS = EntryPoint("text", "uspcap.report.renderers.text:RENDERER")


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points of all groups, to be filled by the test."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: tuple(found))
    registry._registered.cache_clear()
    yield found
    registry._registered.cache_clear()


def test_formats_of_reports_and_tables_are_what_is_registered() -> None:
    assert registry.formats()[:2] == ("text", "json")
    assert registry.table_formats()[:2] == ("csv", "hgrm")
    for name in registry.formats():
        assert isinstance(registry.renderer(name), Renderer)
    assert all(isinstance(one, TableRenderer) for one in registry.table_renderers())


def test_every_format_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "output-formats.md").read_text(encoding="utf-8")
    for name in ("text", "json", "csv", "hgrm"):
        assert f"`{name}`" in page


def test_names_are_known_without_loading_what_writes_them() -> None:
    program = (
        "import sys; from uspcap.report.renderers.registry import formats; assert formats();"
        "print([one for one in sys.modules if one.split('.')[0] in ('rich', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_ours_come_first_and_keep_their_names(points: list[EntryPoint], capsys: pytest.CaptureFixture[str]) -> None:
    points += [EntryPoint("odd", "odd:RENDERER"), EntryPoint("text", "elsewhere:RENDERER"), OURS]
    assert registry.formats() == ("text", "odd")
    assert registry.renderer("text") is OURS.load()
    assert capsys.readouterr().err == (
        "uspcap: elsewhere:RENDERER is an output format text, which there is already: rename one of them\n"
    )


def test_a_package_that_cannot_be_loaded_is_named_before_anything_is_read(points: list[EntryPoint]) -> None:
    points += [EntryPoint("odd", "not_there_at_all:RENDERER"), EntryPoint("no", "os:sep"), OURS]
    with pytest.raises(MissingFeature, match=r"format odd cannot be loaded \(not_there_at_all:RENDERER: No module"):
        registry.check("odd")
    with pytest.raises(MissingFeature, match="os:sep is no Renderer: fix or remove its package"):
        registry.check("no")
    registry.check("text")


def test_only_renderers_print() -> None:
    package = Path(uspcap.__file__).parent
    printing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.parent != package / "report" / "renderers"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(one.name.split(".")[0] == "rich" for one in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rich")
    }
    assert printing == set()
