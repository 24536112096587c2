"""Files appear whole, or not at all; what is no file is written as it comes."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.unprivileged import NOBODY, let_others_in
from support.veth_pairs import wait_until

from uspcap.files import whole
from uspcap.files.places import Untrusted
from uspcap.files.whole import whole_file

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root makes files that are another's")


def write(path: Path | str, text: str = "new\n") -> None:
    with whole_file(path) as stream:
        stream.write(text)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_nothing_is_there_before_the_end_and_everything_then(tmp_path: Path) -> None:
    path = tmp_path / "report"
    with whole_file(path) as stream:
        stream.write("a\n" * 100_000)
        assert not path.exists()
    assert path.read_text() == "a\n" * 100_000
    assert names(tmp_path) == ["report"]


def test_old_file_stays_until_the_new_one_is_there(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    with whole_file(path) as stream:
        stream.write("new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError, OSError])
@pytest.mark.parametrize("old", ["old", None])
def test_old_file_stays_where_anything_fails(tmp_path: Path, error: type[BaseException], old: str | None) -> None:
    path = tmp_path / "report"
    if old is not None:
        path.write_text(old)
    with pytest.raises(error), whole_file(path) as stream:
        stream.write("new" * 10_000)
        raise error
    assert names(tmp_path) == ["report"] * (old is not None)
    assert old is None or path.read_text() == old


@pytest.mark.parametrize("failing", ["fsync", "replace", "fchmod"])
def test_old_file_stays_where_the_system_fails(tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(whole.os, failing, fail)
        with pytest.raises(OSError, match="Input/output error"):
            write(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report"]


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    program = (
        "import resource, sys\n"
        "from uspcap.files.whole import whole_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "with whole_file(sys.argv[1]) as stream:\n"
        "    stream.write('x' * 20_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027])
def test_new_file_has_what_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "report")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444, 0o755])
def test_file_that_is_there_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    path.chmod(mode)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_text() == "new\n"


@as_root
def test_file_that_is_there_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    os.chown(path, NOBODY, NOBODY)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    assert path.read_text() == "new\n"


@as_root
@pytest.mark.parametrize("directory_mode", [0o755, 0o777])
def test_file_that_may_be_written_and_not_replaced_is_overwritten_at_the_end(
    tmp_path: Path, directory_mode: int
) -> None:
    """Nobody may write root's file, and may or may not make others beside it; he cannot give any to root."""
    let_others_in(tmp_path, directory_mode)
    path = tmp_path / "report"
    path.write_text("old and longer")
    path.chmod(0o666)
    inode = path.stat().st_ino
    program = (
        "import os, sys\n"
        "from uspcap.files.whole import whole_file\n"
        f"os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
        "with whole_file(sys.argv[1]) as stream:\n"
        "    stream.write('new')\n"
        "    stream.flush()\n"
        "    print(open(sys.argv[1]).read())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "old and longer\n", "")
    assert path.read_text() == "new"
    assert (path.stat().st_ino, path.stat().st_uid) == (inode, 0)
    assert names(tmp_path) == ["report"]


@as_root
def test_file_that_is_a_mount_of_its_own_is_overwritten_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("old")
    (tmp_path / "report").touch()
    script = (
        "mount --bind outside report && "
        'exec python -c "from uspcap.files.whole import whole_file\n'
        "with whole_file('report') as stream: stream.write('new')\""
    ).replace("python", sys.executable)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this machine lacks mount namespaces")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "outside").read_text() == "new"
    assert names(tmp_path) == ["outside", "report"]


def test_link_of_our_own_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new\n"


@as_root
def test_link_of_another_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    os.chown(tmp_path / "link", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(Untrusted):
        write(tmp_path / "link")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file", "link"]


def test_longest_name_is_no_obstacle(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 255))
    assert names(tmp_path) == ["x" * 255]


@pytest.mark.parametrize("path", ["fifo", "/dev/fd/{}", "/proc/self/fd/{}"])
def test_pipe_is_written_as_it_comes(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    reading, writing = os.pipe() if path != "fifo" else (os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK), -1)
    with whole_file(tmp_path / "fifo" if path == "fifo" else path.format(writing)) as stream:
        stream.write("first")
        stream.flush()
        assert os.read(reading, 100) == b"first"
        stream.write("second")
    assert os.read(reading, 100) == b"second"
    for descriptor in {reading, writing} - {-1}:
        os.close(descriptor)


def test_wait_for_a_fifo(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    waits: list[int] = []

    def work() -> None:
        with whole_file(fifo, waiting=lambda: waits.append(1)) as stream:
            stream.write("x" * 100_000)

    thread = threading.Thread(target=work)
    thread.start()
    assert wait_until(lambda: bool(waits))
    assert fifo.read_text() == "x" * 100_000
    thread.join()


def test_standard_output_that_is_a_file_is_added_to_where_it_is(tmp_path: Path) -> None:
    program = (
        "from uspcap.files.whole import whole_file\n"
        "print('before', flush=True)\n"
        "with whole_file('/dev/stdout') as stream: stream.write('report\\n')\n"
        "print('after', flush=True)\n"
    )
    for mode in ("wb", "ab"):
        with (tmp_path / "out").open(mode) as file:
            subprocess.run([sys.executable, "-c", program], stdout=file, check=True, timeout=60)
    assert (tmp_path / "out").read_text() == "before\nreport\nafter\n" * 2
    assert names(tmp_path) == ["out"]


def test_devices_are_written() -> None:
    write("/dev/null")
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="No space left"):
            write("/dev/full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine lacks /dev/full")
def test_first_error_is_the_one_that_is_reported() -> None:
    with pytest.raises(LookupError, match="first"), whole_file("/dev/full") as stream:
        stream.write("not written")
        raise LookupError("first")


def test_text_that_no_encoding_has_is_escaped(tmp_path: Path) -> None:
    write(tmp_path / "report", "µ\udcff")
    assert (tmp_path / "report").read_bytes() == "µ\\udcff".encode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_unfinished(tmp_path: Path, number: int) -> None:
    (tmp_path / "report").write_text("old")
    program = (
        "import os, signal, sys\n"
        "from uspcap.files.whole import whole_file\n"
        "from uspcap.signals import end_at_once\n"
        "end_at_once()\n"
        "with whole_file(sys.argv[1]) as stream:\n"
        "    stream.write('new' * 10_000)\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    signal.pause()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "report"], capture_output=True, timeout=60)
    assert done.returncode == -number
    assert names(tmp_path) == ["report"]
    assert (tmp_path / "report").read_text() == "old"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    write(tmp_path / "a")
    write(tmp_path / "a")
    write("/dev/null")
    for path in (tmp_path, tmp_path / "none" / "x", "/dev/full"):
        with pytest.raises(OSError):
            write(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
