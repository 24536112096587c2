"""Privileges given up: processes of their own, in namespaces of the test's own."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.capturing import Run, frames_of
from support.nic_kernel import NicKernel
from support.traffic import numbered_frame
from support.unprivileged import NOBODY, capabilities_of, let_others_in, nobody_with, status_of
from support.veth_pairs import HERE, Pair, wait_until

from uspcap.capabilities import CAPABILITY_NUMBERS
from uspcap.errors import UsageError
from uspcap.frames import TimestampSource
from uspcap.pipeline.privileges import find_user
from uspcap.timestamps.timestamping import Timestamping

NEEDED = ("CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF")
BACKENDS = [("packet_mmap",), ("af_xdp", "--take-all")]

FAKE_SOURCE = """
from uspcap.backends.base import LiveSource, SourceStatistics
from uspcap.capabilities import effective_capabilities
from uspcap.pipeline.privileges import find_user, relinquish
from uspcap.errors import PermissionDenied

class Source(LiveSource):
    interfaces = batches = stop = describe = close = None

    def __init__(self, needed=(), counting_needs=None):
        self.needed, self.counting_needs = frozenset(needed), counting_needs

    def capabilities_needed(self):
        return self.needed

    def statistics(self):
        if self.counting_needs and self.counting_needs not in effective_capabilities():
            raise PermissionDenied("no")
        return SourceStatistics()

def say(said):
    print(said)
    print(sorted(effective_capabilities()))
    for line in open("/proc/thread-self/status"):
        if line.startswith(("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs")):
            print(*line.split())
"""


@pytest.fixture(params=BACKENDS, ids=["packet_mmap", "af_xdp"])
def backend(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param[0] == "af_xdp":
        request.getfixturevalue("kernel_bpf")
    return ("--backend", *request.param)


def say(*words: str) -> list[str]:
    """Run a command and return its lines."""
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def as_root(script: str) -> list[str]:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    return say(sys.executable, "-c", FAKE_SOURCE + script)


def mask(*names: str) -> str:
    return f"{sum(1 << CAPABILITY_NUMBERS[name] for name in names):016x}"


def promiscuous(pair: Pair) -> bool:
    return "promiscuity 1" in pair.here.ip("-d", "link", "show", HERE)


def test_root_goes_on_as_the_user_and_everything_still_closes(
    pair: Pair, run: Run, tmp_path: Path, backend: Sequence[str]
) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "out.pcapng"
    words = ("-i", HERE, "-Z", "nobody", *backend, "-B", "512", "-w", str(path), "--analyze", "summary,bursts")
    running = run(*words).ready()
    assert wait_until(lambda: "continues as nobody without any capability" in running.stderr)
    assert promiscuous(pair)
    for thread in status_of(running.process.pid):
        assert thread["Uid"].split() == [str(NOBODY)] * 4
        assert set(thread["Gid"].split()) == {thread["Gid"].split()[0]} != {"0"}
        assert "0" not in thread["Groups"].split()
        assert capabilities_of(thread) == 0
        assert thread["NoNewPrivs"] == "1"
    # Losses must still be counted: nobody reads, and the ring is small.
    os.kill(running.process.pid, signal.SIGSTOP)
    sent = 2000
    pair.send(*[numbered_frame(number, 1000) for number in range(sent)])
    os.kill(running.process.pid, signal.SIGCONT)
    # Its header and much more; to read a file that is being written is another matter.
    assert wait_until(lambda: path.exists() and path.stat().st_size > 50_000)
    assert running.end() == 0
    written = len(frames_of(path))
    assert 0 < written < sent
    assert running.accounts.startswith(f"received {sent} = {written} written + {sent - written} dropped (")
    assert "not accounted" not in running.accounts
    assert f"packets     {written:,}" in running.stdout
    assert not promiscuous(pair)
    assert "xdp" not in pair.here.ip("link", "show", HERE)
    assert path.stat().st_uid == NOBODY
    assert path.stat().st_mode & 0o777 == 0o600


def test_three_capabilities_are_enough_and_none_is_left_while_frames_come(
    pair: Pair, tmp_path: Path, backend: Sequence[str]
) -> None:
    let_others_in(tmp_path, 0o777)
    path = tmp_path / "out.pcapng"
    words = ("capture", "-i", HERE, *backend, "-B", "2048", "-w", str(path), "udp", "port", "5000")
    script = "from uspcap.cli import main; main(sys.argv[1:])"
    errors = tmp_path / "stderr"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(pair.here.command(*nobody_with(NEEDED, script, *words)), stderr=stderr)
    try:
        ready = "uspcap: goes on without any capability"
        assert wait_until(lambda: ready in errors.read_text() or process.poll() is not None)
        assert process.poll() is None, errors.read_text()
        assert promiscuous(pair)
        for thread in status_of(process.pid):
            assert thread["Uid"].split() == [str(NOBODY)] * 4
            assert capabilities_of(thread) == 0
        pair.send(*[numbered_frame(number) for number in range(50)])
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert len(frames_of(path)) == 50
    assert "received 50 = 50 written" in errors.read_text()
    assert path.stat().st_uid == NOBODY
    assert not promiscuous(pair)
    assert "xdp" not in pair.here.ip("link", "show", HERE)


def test_settings_of_busy_polling_are_put_back_without_privileges(
    pair: Pair, run: Run, tmp_path: Path, kernel_bpf: None
) -> None:
    files = [f"/sys/class/net/{HERE}/{name}" for name in ("napi_defer_hard_irqs", "gro_flush_timeout")]

    def settings() -> list[str]:
        return say(*pair.here.command("cat", *files))

    before = settings()
    running = run("-i", HERE, "-Z", "nobody", "--take-all", "--busy-poll", "-w", str(tmp_path / "out.pcapng")).ready()
    assert wait_until(lambda: "continues as nobody" in running.stderr)
    assert settings() != before
    pair.send(numbered_frame(1))
    assert running.end() == 0
    assert settings() == before


def test_user_and_groups_are_changed_and_no_capability_is_left() -> None:
    said, effective, *status = as_root('say(relinquish(find_user("nobody"), Source()))')
    assert said == "continues as nobody without any capability"
    assert effective == "[]"
    assert f"Uid: {' '.join(['65534'] * 4)}" in status
    assert [line for line in status if line.startswith("Cap")] == [
        f"{name}: {0:016x}" for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")
    ]
    assert "NoNewPrivs: 1" in status


def test_only_what_is_needed_until_the_end_is_kept() -> None:
    said, effective, *status = as_root('say(relinquish(find_user("nobody"), Source(["CAP_NET_ADMIN"])))')
    assert said == "continues as nobody with CAP_NET_ADMIN only"
    assert effective == "['CAP_NET_ADMIN']"
    assert f"CapPrm: {mask('CAP_NET_ADMIN')}" in status
    assert f"CapInh: {0:016x}" in status
    assert f"Uid: {' '.join(['65534'] * 4)}" in status


@pytest.mark.parametrize(("kept", "number"), [(["CAP_NET_ADMIN"], errno.EOPNOTSUPP), ([], errno.EPERM)])
def test_kernel_wants_what_is_kept_for_switching_timestamping_back(kept: list[str], number: int) -> None:
    # The loopback has no such setting: with the capability, that is what the kernel objects to.
    script = f"""
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.nic import TimestampingSetting
calls = KernelCalls()
relinquish(find_user("nobody"), Source({kept}))
try:
    TimestampingSetting(0, 0, 1).write("lo", calls)
except OSError as error:
    print(error.errno)
"""
    assert as_root(script) == [str(number)]


def test_kernel_that_wants_a_capability_for_reading_maps_gets_it() -> None:
    said, effective, *_ = as_root('say(relinquish(find_user("nobody"), Source([], "CAP_BPF")))')
    assert said == "continues as nobody with CAP_BPF only"
    assert effective == "['CAP_BPF']"


def test_root_that_names_nobody_or_itself_stays_what_it_is() -> None:
    for user in ("None", 'find_user("root")'):
        said, effective, *status = as_root(f"say(relinquish({user}, Source()))")
        assert said == ""
        assert "CAP_NET_RAW" in effective
        assert "Uid: 0 0 0 0" in status


def test_capabilities_that_the_process_lacks_are_not_claimed() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    script = FAKE_SOURCE + 'say(relinquish(None, Source(["CAP_NET_ADMIN", "CAP_BPF"])))'
    said, effective, *_ = say(*nobody_with(["CAP_NET_ADMIN", "CAP_NET_RAW"], script))
    assert said == "goes on with CAP_NET_ADMIN only"
    assert effective == "['CAP_NET_ADMIN']"


def test_process_without_privileges_has_nothing_to_give_up() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    said, *_ = say(*nobody_with([], FAKE_SOURCE + "say(relinquish(None, Source()))"))
    assert said == ""


def test_nobody_cannot_become_another_user() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    script = (
        FAKE_SOURCE
        + """
from uspcap.errors import UsageError
try:
    find_user("root")
except UsageError as error:
    print(error)
"""
    )
    assert say(*nobody_with([], script)) == [
        "only root can switch to another user (-Z root): leave -Z out, or run uspcap as root"
    ]


def test_unknown_user_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="there is no user 'no-such-user' for -Z"):
        find_user("no-such-user")


def test_changed_timestamping_of_the_nic_needs_its_capability_until_it_is_put_back() -> None:
    timestamping = Timestamping("eth7", "hardware", TimestampSource.KERNEL, NicKernel())
    assert timestamping.must_restore
    timestamping.close()
    timestamps_already = NicKernel(setting=(0, 1, 1))
    unchanged = Timestamping("eth7", "hardware", TimestampSource.KERNEL, timestamps_already)
    assert not unchanged.must_restore
    unchanged.close()
