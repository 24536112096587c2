"""Busy polling: settings that are put back whatever happens. veth lets no AF_XDP socket of copy mode poll it."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.capturing import Run, frames_of
from support.traffic import in_order, numbered_frame
from support.veth_pairs import HERE, Pair, wait_until

from uspcap.backends.af_xdp.busy_poll import DeferredInterrupts, poll_busily
from uspcap.backends.network_interface import NetworkInterface

SETTINGS = ("napi_defer_hard_irqs", "gro_flush_timeout")
SO_BUSY_POLL, SO_PREFER_BUSY_POLL = 46, 69
AF_XDP = ("-i", HERE, "--take-all")


def settings(pair: Pair) -> list[int]:
    """What sysfs says in the namespace `here`."""
    files = [f"/sys/class/net/{HERE}/{name}" for name in SETTINGS]
    done = subprocess.run(pair.here.command("cat", *files), capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def write(pair: Pair, name: str, value: int) -> None:
    command = f"echo {value} >/sys/class/net/{HERE}/{name}"
    subprocess.run(pair.here.command("sh", "-c", command), check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interface_has_its_settings_back_however_the_capture_ends(
    pair: Pair, run: Run, tmp_path: Path, kernel_bpf: None, number: int
) -> None:
    path = tmp_path / "out.pcapng"
    write(pair, "napi_defer_hard_irqs", 1)
    running = run(*AF_XDP, "-w", str(path), "--busy-poll").ready()
    assert "busy polling 20 us" in running.stderr
    raised = "napi_defer_hard_irqs from 1 to 2 and gro_flush_timeout from 0 to 200000, until the end of the capture"
    assert wait_until(lambda: f"{HERE}: {raised}" in running.stderr)
    assert settings(pair) == [2, 200_000]
    pair.send(*[numbered_frame(one) for one in range(50)])
    assert wait_until(lambda: path.exists() and len(frames_of(path)) == 50)
    running.end(number)
    assert wait_until(lambda: settings(pair) == [1, 0])
    assert list(in_order(frames_of(path))) == list(range(50))


def test_capture_that_does_not_start_puts_the_settings_back(pair: Pair, run: Run, kernel_bpf: None) -> None:
    too_little = ("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "prlimit", "--memlock=65536:65536")
    running = run(*AF_XDP, "--busy-poll=50", wrapper=too_little)
    assert running.process.wait(30) == 1
    assert "on locked memory is too low" in running.stderr
    assert settings(pair) == [0, 0]


def test_setting_that_others_changed_meanwhile_is_left_alone(pair: Pair, run: Run, kernel_bpf: None) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        running = run(*AF_XDP, "--busy-poll=50").ready()
        write(pair, "gro_flush_timeout", 77_000)
        running.end(number)
        assert wait_until(lambda: settings(pair) == [0, 77_000])
        write(pair, "gro_flush_timeout", 0)


def test_settings_that_are_high_enough_stay(pair: Pair, run: Run, kernel_bpf: None) -> None:
    write(pair, "napi_defer_hard_irqs", 10)
    write(pair, "gro_flush_timeout", 1_000_000)
    running = run(*AF_XDP, "--busy-poll=50").ready()
    assert "until the end of the capture" not in running.stderr
    assert settings(pair) == [10, 1_000_000]
    assert running.end() == 0
    assert settings(pair) == [10, 1_000_000]


def test_queues_that_were_not_polled_are_reported(pair: Pair, run: Run, kernel_bpf: None) -> None:
    running = run(*AF_XDP, "--analyze", "summary", "--busy-poll=50").ready()
    pair.send(*[numbered_frame(one) for one in range(50)])
    assert running.end() == 0
    assert running.accounts.startswith("received 50 = 50 analyzed")
    if tuple(int(part) for part in Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]) >= (6, 14):
        # From there on, sockets of copy mode poll nothing.
        assert "receive queues that the kernel did not let uspcap poll: 1" in running.accounts


def test_interface_of_another_namespace_under_the_same_name_is_not_touched(pair: Pair, tmp_path: Path) -> None:
    # This process's /sys is that of the namespace it started in, where `here0` is not.
    with pair.here.entered():
        interface = NetworkInterface.look_up(HERE)
        deferred = DeferredInterrupts(interface)
    deferred.close()
    (remark,) = deferred.remarks
    assert "interrupts of here0 are not held back while it is polled" in remark
    assert settings(pair) == [0, 0]


def test_namesake_with_another_index_is_not_touched(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uspcap.backends.af_xdp.busy_poll._SYSFS", tmp_path)
    (tmp_path / HERE).mkdir()
    for name, value in (("ifindex", 999), *((name, 0) for name in SETTINGS)):
        (tmp_path / HERE / name).write_text(f"{value}\n")
    with pair.here.entered():
        deferred = DeferredInterrupts(NetworkInterface.look_up(HERE))
    deferred.close()
    assert "another network namespace" in deferred.remarks[0]
    assert [(tmp_path / HERE / name).read_text() for name in SETTINGS] == ["0\n", "0\n"]


def test_watcher_that_was_killed_does_not_keep_the_settings_from_being_restored(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uspcap.backends.af_xdp.busy_poll._SYSFS", tmp_path)
    with pair.here.entered():
        interface = NetworkInterface.look_up(HERE)
    (tmp_path / HERE).mkdir()
    for name, value in (("ifindex", interface.index), *((name, 0) for name in SETTINGS)):
        (tmp_path / HERE / name).write_text(f"{value}\n")
    deferred = DeferredInterrupts(interface)
    assert [(tmp_path / HERE / name).read_text() for name in SETTINGS] == ["2\n", "200000\n"]
    assert deferred._watcher is not None
    deferred._watcher.kill()
    deferred._watcher.wait()
    deferred.close()
    assert [(tmp_path / HERE / name).read_text() for name in SETTINGS] == ["0\n", "0\n"]


def test_socket_is_set_to_poll(pair: Pair) -> None:
    with pair.here.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        poll_busily(one, 33, NetworkInterface.look_up(HERE))
        # The kernel does not give the budget back.
        assert [one.getsockopt(socket.SOL_SOCKET, option) for option in (SO_PREFER_BUSY_POLL, SO_BUSY_POLL)] == [1, 33]


def test_missing_capability_is_named(pair: Pair) -> None:
    code = (
        "import socket\nfrom uspcap.backends.af_xdp.busy_poll import poll_busily\n"
        "from uspcap.backends.network_interface import NetworkInterface\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:\n"
        f"    poll_busily(one, 20, NetworkInterface.look_up({HERE!r}))"
    )
    words = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", code)
    done = subprocess.run(pair.here.command(*words), capture_output=True, text=True, timeout=60)
    assert "PermissionDenied: cannot busy-poll here0: CAP_NET_ADMIN is missing" in done.stderr


def test_capture_in_which_nothing_comes_still_ends(pair: Pair, run: Run, kernel_bpf: None) -> None:
    began = time.monotonic()
    running = run(*AF_XDP, "--busy-poll=50", "--duration", "300ms")
    assert running.process.wait(30) == 0
    assert time.monotonic() - began > 0.3
    assert running.accounts == "received 0 = 0 analyzed"
