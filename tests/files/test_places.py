"""Where paths lead, and whom uspcap trusts on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.unprivileged import NOBODY, let_others_in
from support.veth_pairs import wait_until

from uspcap.files.places import Untrusted, open_place, place_of

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root makes files that are another's")


def lead_to(path: Path | str, mode: int = 0o666) -> Path:
    """Open what a path leads to for writing, and return which file that is."""
    with place_of(path) as place:
        descriptor, _, _ = open_place(place, mode)
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)


def another_ones(path: Path) -> Path:
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory such as /tmp."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


def test_links_of_our_own_are_followed_as_the_kernel_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "to_b").symlink_to("a/b")
    (tmp_path / "a" / "b" / "up").symlink_to("../..")
    (tmp_path / "a" / "absolute").symlink_to(tmp_path / "to_b")
    (tmp_path / "file").symlink_to("a/absolute/x")
    (tmp_path / "dangling").symlink_to("a/not_yet")
    monkeypatch.chdir(tmp_path / "a")
    for path in ("x", "./x", "b//x", "../a/./b/../x", "absolute/x", "absolute/up/y", "../file", "../dangling"):
        led = lead_to(path)
        assert led == Path(path).resolve()


names = st.sampled_from(["a", "b", "c", "link", "up", "loop", "file", "none", ".", "..", ""])


@given(parts=st.lists(names, min_size=1, max_size=8), absolute=st.booleans())
def test_every_path_leads_where_the_kernel_says(
    parts: list[str], absolute: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.getbasetemp() / "tree"
    if not base.exists():
        for directory in ("a/b/c", "b", "c/a"):
            (base / directory).mkdir(parents=True)
        for directory in (".", "a", "a/b", "c"):
            (base / directory / "file").touch()
            (base / directory / "link").symlink_to("../" * directory.count("/") + "b")
            (base / directory / "up").symlink_to("..")
            (base / directory / "loop").symlink_to("loop")
    path = f"{base if absolute else os.path.relpath(base)}/{'/'.join(parts)}"
    assert outcome(open_by_kernel, path) == outcome(open_by_walk, path), path


def open_by_kernel(path: str) -> int:
    return os.open(path, os.O_WRONLY)


def open_by_walk(path: str) -> int:
    with place_of(path) as place:
        return os.open(place.name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=place.directory)


def outcome(opening: Callable[[str], int], path: str) -> tuple[int, int] | int | None:
    """Return which file it was, or the error number."""
    try:
        descriptor = opening(path)
    except OSError as error:
        return error.errno
    status = os.fstat(descriptor)
    os.close(descriptor)
    return status.st_dev, status.st_ino


def test_a_path_that_is_none_is_an_error() -> None:
    with pytest.raises(FileNotFoundError), place_of(""):
        pass
    with pytest.raises(ValueError, match="null"), place_of("a\0b"):
        pass


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("none/x")
    (tmp_path / "loop").symlink_to("loop")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("x", "link", "loop", "x/y/z", "."):
        try:
            lead_to(tmp_path / path)
        except OSError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@as_root
@pytest.mark.parametrize("target", ["secret", "secret/new", "not there"])
@pytest.mark.parametrize("where", ["shared", "."])
def test_link_of_another_is_followed_nowhere(tmp_path: Path, shared: Path, target: str, where: str) -> None:
    (tmp_path / "secret").mkdir()
    link = tmp_path / where / "link"
    link.symlink_to(tmp_path / target)
    for path in (link, link / "x") if target == "secret" else (link,):
        another_ones(link)
        with pytest.raises(Untrusted, match="'link' in its path is a symbolic link of user nobody"):
            lead_to(path)
    # A link of root's to that link changes nothing.
    (tmp_path / "mine").symlink_to(link)
    with pytest.raises(Untrusted):
        lead_to(tmp_path / "mine")
    assert list((tmp_path / "secret").iterdir()) == []


@as_root
def test_link_of_root_is_followed_by_everybody(tmp_path: Path, shared: Path) -> None:
    let_others_in(tmp_path)
    (shared / "link").symlink_to("file")
    program = (
        "import os\n"
        "from uspcap.files.places import open_place, place_of\n"
        f"os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
        f"with place_of({str(shared / 'link')!r}) as place:\n"
        "    open_place(place)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (shared / "file").stat().st_uid == NOBODY


@as_root
def test_file_of_another_is_not_written_where_everybody_makes_files(shared: Path) -> None:
    (shared / "theirs").write_text("theirs")
    another_ones(shared / "theirs")
    with pytest.raises(Untrusted, match="it exists, belongs to user nobody, and others may write"):
        lead_to(shared / "theirs")
    os.mkfifo(shared / "fifo")
    another_ones(shared / "fifo")
    listening = os.open(shared / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(Untrusted):
        lead_to(shared / "fifo")
    os.close(listening)
    assert (shared / "theirs").read_text() == "theirs"
    # Whose directory it is may put files there for others.
    another_ones(shared)
    assert lead_to(shared / "theirs") == shared / "theirs"


@as_root
def test_file_of_another_is_written_where_only_its_owner_makes_files(tmp_path: Path) -> None:
    another_ones(tmp_path)
    (tmp_path / "theirs").touch()
    another_ones(tmp_path / "theirs")
    assert lead_to(tmp_path / "theirs") == tmp_path / "theirs"


def test_second_name_of_a_file_is_not_written_where_everybody_makes_files(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (shared / "name").hardlink_to(tmp_path / "file")
    with pytest.raises(Untrusted, match="it exists under another name too"):
        lead_to(shared / "name")
    assert lead_to(tmp_path / "file") == tmp_path / "file"


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/{}", "/proc/self/fd/{}"])
def test_open_files_of_our_own_are_taken_as_they_are(path: str, tmp_path: Path) -> None:
    with (tmp_path / "file").open("ab") as file:
        file.write(b"before")
        file.flush()
        number = 1 if path == "/dev/stdout" else file.fileno()
        with place_of(path.format(file.fileno())) as place:
            assert place.own_descriptor == number
            assert not place.replaceable


def test_open_files_of_other_processes_are_opened_as_the_kernel_does(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        other = subprocess.Popen(["sleep", "60"], stdout=file)
    try:
        assert lead_to(f"/proc/{other.pid}/fd/1") == tmp_path / "file"
        assert lead_to(f"/proc/{other.pid}/cwd/{os.path.relpath(tmp_path)}/new") == tmp_path / "new"
    finally:
        other.kill()
        other.wait()


def test_wait_for_a_fifo_is_reported_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    waits: list[int] = []
    opened: list[int] = []

    def write() -> None:
        with place_of(tmp_path / "fifo") as place:
            opened.append(open_place(place, waiting=lambda: waits.append(1))[0])

    thread = threading.Thread(target=write)
    thread.start()
    assert wait_until(lambda: bool(waits))
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    thread.join(30)
    assert waits == [1]
    os.write(opened[0], b"x")
    assert os.read(reading, 10) == b"x"
    os.close(opened[0])
    os.close(reading)


def test_nothing_is_emptied_and_new_files_get_their_mode(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    lead_to(tmp_path / "old", 0o600)
    assert (tmp_path / "old").read_text() == "old"
    lead_to(tmp_path / "new", 0o600)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


@as_root
def test_link_that_is_put_there_in_between_is_not_followed(tmp_path: Path, shared: Path) -> None:
    """Somebody exchanges the file for a link as fast as that goes: what it leads to stays as it is."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            link = shared / "link"
            link.symlink_to(secret)
            another_ones(link)
            link.replace(shared / "out")
            (shared / "out").unlink(missing_ok=True)

    thread = threading.Thread(target=exchange)
    thread.start()
    outcomes: set[str] = set()
    refusals = {"Untrusted", "OSError"}
    try:
        # On a busy machine the other thread may not get at it for thousands of attempts: on, until it has.
        for attempt in range(300_000):
            if attempt >= 3000 and not outcomes.isdisjoint(refusals):
                break
            try:
                outcomes.add(lead_to(shared / "out").name)
            except OSError as error:
                outcomes.add(type(error).__name__)
    finally:
        over.set()
        thread.join()
    assert "secret" not in outcomes
    assert not outcomes.isdisjoint(refusals)
