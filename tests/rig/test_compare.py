"""`uspcap compare -i` on drivers that grant zero copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rig.nics import HERE_ADDRESS, Nics
from rig.running import run

PATHS = ("kernel", "packet_mmap", "af_xdp")


@pytest.mark.rig("igb", "virtio")
def test_large_probes_arrive_on_every_path(nics: Nics, tmp_path: Path) -> None:
    """No path may suffer from the sockets of another: in zero copy they are the driver's receive buffers."""
    command = run(
        *(tmp_path, "compare", "-i", nics.here, "--paths", ",".join(PATHS), "--probe", HERE_ADDRESS),
        *("--probe-namespace", nics.far.name, "--size", "1200", "--rate", "200", "--runs", "3", "--run-duration", "1s"),
        *("--design", "block", "--format", "json"),
    )
    assert command.code == 0, command.stderr
    report = json.loads(command.stdout)
    assert set(report["paths"]) == set(PATHS)
    for name in PATHS:
        path = report["paths"][name]
        assert path["frames"] > 100, (name, path)
        assert path["dropped"] == 0, (name, path["drops"], command.stderr)
    assert "zero copy" in report["paths"]["af_xdp"]["end"]
