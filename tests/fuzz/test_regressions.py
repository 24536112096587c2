"""Patches that put mended bugs back say what they do, and apply to the sources as they are."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATCHES = sorted((ROOT / "fuzz" / "regressions").glob("*.patch"))
TARGETS = {path.stem for path in (ROOT / "fuzz" / "targets").glob("[a-z]*.py")}


def test_there_are_patches() -> None:
    assert len(PATCHES) >= 16


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_mended_bug_can_be_put_back(patch: Path) -> None:
    ended = subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, f"{patch.name} is to be regenerated: {ended.stderr}"


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_patch_says_what_the_bug_is_which_target_finds_it_and_as_what(patch: Path) -> None:
    head = patch.read_text(encoding="utf-8").partition("\ndiff ")[0]
    said = dict(re.findall(r"^(target|finding|bug): (\S.*)$", head, re.MULTILINE))
    assert said.keys() == {"target", "finding", "bug"}
    assert said["target"].partition(":")[0] in TARGETS
