"""What tests leave behind: nothing."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import namespaces
from support.namespaces import MakeNamespace

DIRECTORY = Path(__file__).parent
NETWORK = Path("/proc/thread-self/ns/net")


def test_traffic_stays_inside_as_there_is_only_loopback(make_namespace: MakeNamespace) -> None:
    outside = NETWORK.readlink()
    with make_namespace().entered():
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        assert NETWORK.readlink() != outside
    assert NETWORK.readlink() == outside


def test_thread_comes_back_after_a_failure_inside(make_namespace: MakeNamespace) -> None:
    outside = NETWORK.readlink()
    with pytest.raises(RuntimeError), make_namespace().entered():
        raise RuntimeError
    assert NETWORK.readlink() == outside


@pytest.mark.parametrize("killed", [False, True], ids=["unhandled error", "kill -9"])
def test_namespace_of_a_process_that_ended_is_removed(make_namespace: MakeNamespace, killed: bool) -> None:
    mine = make_namespace()
    end = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)" if killed else "raise RuntimeError"
    script = f"from support import namespaces; print(namespaces.Namespace().path, flush=True); {end}"
    done = subprocess.run([sys.executable, "-c", script], cwd=DIRECTORY, capture_output=True, text=True, check=False)
    assert done.returncode == (-signal.SIGKILL if killed else 1)
    path = Path(done.stdout.strip())
    assert path.exists() == killed
    namespaces.remove_left_over()
    assert not path.exists()
    assert Path(mine.path).exists()
