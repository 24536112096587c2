"""The parts of a guest, from Debian's packages: QEMU, a kernel with its modules, an initramfs, a module of our own.

They lie in the user's cache directory, a directory for each set of versions, and are made once. The guest's root is
the host's own, read-only, so no distribution is installed anywhere.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rig.archive import INDEX_GOOD_FOR_S, Archive, ArchiveUnreachable

HERE: Final = Path(__file__).parent

_EARLY_MODULES: Final = ("failover", "netfs", "9pnet", "9pnet_virtio", "9p", "overlay")
"""What must be there before the root is, in the order of loading."""

_KERNEL: Final = r"linux-binary-((\d+)\.(\d+)\.(\d+)\+deb\d+-amd64)"
_BUILD_TOOLS: Final = ("base-files", "binutils", "coreutils", "dash", "findutils", "grep", "make", "mawk", "sed")


@dataclass(frozen=True, slots=True)
class Assembly:
    """Where the parts are.

    Attributes
    ----------
    host_tools : Path
        Root of what runs here and in the guest: QEMU, busybox, teamd.
    kernel : Path
    release : str
        As `uname -r` reports it in the guest.
    modules : Path
        To be /lib/modules in the guest.
    initramfs : Path
    test_module : Path
        The built kernel module.
    """

    host_tools: Path
    kernel: Path
    release: str
    modules: Path
    initramfs: Path
    test_module: Path

    @property
    def library_path(self) -> str:
        """Of what `host_tools` has, for LD_LIBRARY_PATH."""
        return f"{self.host_tools}/usr/lib/x86_64-linux-gnu:{self.host_tools}/lib/x86_64-linux-gnu"


def cache_directory() -> Path:
    """Return where everything is kept that need not be made again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "uspcap-rig"


def assemble() -> Assembly:
    """Return a complete assembly; where the archive cannot be reached, the last one that was made here.

    Raises
    ------
    ArchiveUnreachable
        And none was made here before.
    ArchiveChanged
        A package is not where it was.
    """
    cache = cache_directory()
    last = cache / "last"
    if last.exists() and time.time() - last.stat().st_mtime < INDEX_GOOD_FOR_S:
        return _as_last_time(cache, last)
    try:
        return _assemble(cache, last)
    except ArchiveUnreachable:
        if not last.exists():
            raise
        return _as_last_time(cache, last)


def _as_last_time(cache: Path, last: Path) -> Assembly:
    release, host, guest, build = last.read_text().split()
    return _complete(cache, release, cache / host, cache / guest, cache / build)


def _assemble(cache: Path, last: Path) -> Assembly:
    # With trixie among its sources, the host's own C library would be upgraded with QEMU.
    tools = Archive(
        cache / "archive-host",
        ["bookworm", "bookworm-backports"],
        preferred={"qemu-system-* seabios": "bookworm-backports"},
        beside_host=True,
    )
    newer = Archive(cache / "archive-guest", ["trixie", "trixie-backports"])
    for archive in (tools, newer):
        archive.update()
    _, release = max((tuple(map(int, match.groups()[1:])), match[1]) for match in newer.names(_KERNEL))
    of_host = ["qemu-system-x86", "busybox-static", "libteam-utils"]
    of_guest = [f"linux-{part}-{release}" for part in ("base", "binary", "modules")]
    of_build = [f"linux-headers-{release}", *_BUILD_TOOLS]
    host = _unpacked(cache, "host", tools, of_host)
    guest = _unpacked(cache, "guest", newer, of_guest, needs=False)
    build = _unpacked(cache, "build", newer, of_build)
    found = _complete(cache, release, host, guest, build)
    last.write_text(f"{release} {host.name} {guest.name} {build.name}")
    return found


def _unpacked(cache: Path, what: str, archive: Archive, names: list[str], *, needs: bool = True) -> Path:
    """Return the directory that holds packages in the versions that the archive has now."""
    versions = archive.versions(names) if needs else names
    there = cache / f"{what}-{hashlib.sha256(' '.join(versions).encode()).hexdigest()[:12]}"
    if not there.exists():
        partial = there.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        archive.unpack(names, partial, needs=needs)
        partial.rename(there)
    return there


def _complete(cache: Path, release: str, host: Path, guest: Path, build: Path) -> Assembly:
    modules = guest / "usr/lib/modules"
    if not (modules / release / "modules.dep.bin").exists():
        subprocess.run(["depmod", "-b", guest / "usr", release], check=True)
    return Assembly(
        host_tools=host,
        kernel=modules / release / "vmlinuz",
        release=release,
        modules=modules,
        initramfs=_initramfs(cache, host, modules / release),
        test_module=_test_module(cache, build, release),
    )


def _initramfs(cache: Path, host: Path, modules: Path) -> Path:
    """Return a cpio archive (`newc`) of busybox, a few modules and `init.sh`."""
    parts = {
        "init": ((HERE / "init.sh").read_bytes(), 0o755),
        "bin/busybox": (next(host.glob("**/bin/busybox")).read_bytes(), 0o755),
        "modules/order": (" ".join(_EARLY_MODULES).encode(), 0o644),
    }
    for name in _EARLY_MODULES:
        found = next(modules.glob(f"kernel/**/{name}.ko*"))
        content = found.read_bytes()
        parts[f"modules/{name}.ko"] = (lzma.decompress(content) if found.suffix == ".xz" else content, 0o644)
    directories = ("bin", "modules", "dev", "host", "top", "root", "results")
    archive = b"".join(_cpio_entry(name, b"", stat.S_IFDIR | 0o755) for name in directories)
    archive += b"".join(_cpio_entry(name, content, stat.S_IFREG | mode) for name, (content, mode) in parts.items())
    archive += _cpio_entry("TRAILER!!!", b"", 0)
    packed = gzip.compress(archive, 1, mtime=0)
    there = cache / f"initramfs-{hashlib.sha256(packed).hexdigest()[:12]}.gz"
    if not there.exists():
        there.with_suffix(".partial").write_bytes(packed)
        there.with_suffix(".partial").rename(there)
    return there


def _cpio_entry(name: str, content: bytes, mode: int) -> bytes:
    # magic, inode, mode, uid, gid, links, mtime, size, two pairs of device numbers, length of the name, check
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def _test_module(cache: Path, build: Path, release: str) -> Path:
    """Return our kernel module, built against the guest's kernel with the compiler that its packages name."""
    sources = sorted((HERE / "test_module").glob("*"))
    digest = hashlib.sha256(build.name.encode() + b"".join(source.read_bytes() for source in sources))
    there = cache / f"uspcap_phc-{digest.hexdigest()[:12]}.ko"
    if there.exists():
        return there
    work = build / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for source in sources:
        shutil.copy(source, work)
    for name in ("tmp", "proc"):
        (build / name).mkdir(exist_ok=True)
    _add_links(build)
    # A root of its own: kernel tools need a newer C library than the host's.
    command = ["unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--mount", "--pid", "--fork"]
    command += [f"--root={build}", "--mount-proc"]
    command += ["/usr/bin/make", "-C", f"/usr/src/linux-headers-{release}", "M=/work", "modules"]
    environment = {"PATH": "/usr/bin:/usr/sbin:/bin", "LC_ALL": "C", "HOME": "/"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the test module does not compile for {release}:\n{done.stdout}\n{done.stderr}")
    shutil.copy(work / "uspcap_phc.ko", there.with_suffix(".partial"))
    there.with_suffix(".partial").rename(there)
    return there


def _add_links(build: Path) -> None:
    """Make the names that packages' own scripts would have made."""
    for name, target in (("usr/bin/sh", "dash"), ("usr/bin/awk", "mawk")):
        if not (build / name).exists():
            (build / name).symlink_to(target)
    # Nothing in the build reads the host's devices but /dev/null.
    device = build / "dev/null"
    if not device.exists():
        device.parent.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        else:
            device.touch()
