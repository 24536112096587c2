"""A backend of somebody else, installed beside uspcap: it captures, and nothing in uspcap knows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.capturing import Running, frames_of
from support.command_line import PROGRAM
from support.traffic import numbered_frame
from support.veth_pairs import HERE, Pair

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the backend into a directory of its own, and return that."""
    target = tmp_path_factory.mktemp("backend")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target]
    done = subprocess.run([*words, ROOT / "examples" / "backend"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


def test_it_captures_every_frame_and_its_accounts_close(pair: Pair, installed: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    frames = [numbered_frame(number, 60 + number) for number in range(100)]
    wrapper = ("env", f"PYTHONPATH={installed}")
    words = ("-i", HERE, "--backend", "raw_socket", "-w", str(path), "--analyze", "summary", "udp")
    running = Running(pair, tmp_path, *words, wrapper=wrapper).ready()
    pair.send(*frames)
    assert running.end() == 0, running.stderr
    assert frames_of(path) == frames
    assert running.accounts == "received 100 = 100 written"
    assert f"{HERE}: raw_socket, one call a frame; timestamps: kernel (CLOCK_REALTIME)" in running.stderr
    assert "packets     100" in running.stdout


def test_its_option_is_on_the_command_and_refused_with_other_backends(installed: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        return subprocess.run([*PROGRAM, *words], env=environment, capture_output=True, text=True, timeout=120)

    assert "[auto|af_xdp|packet_mmap|replay|raw_socket]" in run("capture", "--help").stdout
    refused = run("capture", "-i", "lo", "--receive-buffer", "8192")
    assert refused.returncode == 2
    assert (
        "--receive-buffer is an option of raw_socket, and not of packet_mmap: leave it out, or use --backend raw_socket"
        in refused.stderr
    )
