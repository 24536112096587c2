"""Entry points, read without importlib.metadata."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from uspcap import entry_points as module
from uspcap.entry_points import EntryPoint, entry_points


@pytest.fixture(autouse=True)
def without_cache() -> None:
    entry_points.cache_clear()
    module._metadata.cache_clear()


@pytest.mark.parametrize("group", ["uspcap.analyses", "console_scripts", "pytest11", "no.such.group"])
def test_they_are_those_of_importlib(group: str) -> None:
    theirs = {(one.name, one.value.partition("[")[0].strip()) for one in importlib.metadata.entry_points(group=group)}
    assert {(one.name, one.value) for one in entry_points(group)} == theirs


def test_the_first_package_of_a_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, version in (("a", "1"), ("b", "2")):
        directory = tmp_path / place / f"Some.Package-{version}.dist-info"
        directory.mkdir(parents=True)
        (directory / "entry_points.txt").write_text(
            f"[other]\nx = y:z\n\n[made.up]\n# note\none = module:A{version} [extra]\n"
        )
    monkeypatch.setattr(sys, "path", [str(tmp_path / "none"), str(tmp_path / "a"), str(tmp_path / "b")])
    assert entry_points("made.up") == (EntryPoint("one", "module:A1"),)
    assert entry_points("other") == (EntryPoint("x", "y:z"),)


def test_an_object_is_loaded() -> None:
    assert EntryPoint("path", "os:path.sep").load() == "/"
    with pytest.raises(ImportError):
        EntryPoint("none", "no_such_module:x").load()
