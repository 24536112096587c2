"""Packages from Debian's archive, unpacked into a directory, with apt's signed index but nothing of the host's set-up.

Each `Archive` has lists, cache and sources of its own, so that neither the host's sources nor its packages change.
Where the archive is, the host's own apt says.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

INDEX_GOOD_FOR_S: Final = 24 * 3600
"""An index that was fetched so recently is used as it is."""

_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_NO_WAY_THERE: Final = re.compile(
    r"could not (resolve|connect)|unable to connect|connection (failed|refused|timed out|reset)|temporary failure|"
    r"network is unreachable|cannot initiate the connection|no route to host",
    re.IGNORECASE,
)


class ArchiveUnreachable(Exception):
    """There is no way to the archive from here; nothing is said about what it holds."""


class ArchiveChanged(Exception):
    """The archive answers, and does not have what is asked for: the rig must follow."""


class Archive:
    """Some suites of Debian's archive.

    Parameters
    ----------
    directory : Path
        Where lists and packages are kept.
    suites : sequence of str
    preferred : dict of str to str, optional
        By pattern of package names, the suite to take them from.
    beside_host : bool
        Packages that the host has are not needed; otherwise all are.
    """

    def __init__(
        self,
        directory: Path,
        suites: Sequence[str],
        *,
        preferred: dict[str, str] | None = None,
        beside_host: bool = False,
    ) -> None:
        self._directory = directory
        for part in ("lists/partial", "cache/archives/partial", "preferences.d"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        site = _site()
        sources = directory / "sources.list"
        sources.write_text("".join(f"deb [signed-by={_KEYRING}] {site} {suite} main\n" for suite in suites))
        preferences = directory / "preferences"
        preferences.write_text(
            "\n".join(
                f"Package: {names}\nPin: release n={suite}\nPin-Priority: 600\n"
                for names, suite in (preferred or {}).items()
            )
        )
        status = directory / "status"
        status.touch()
        settings = {
            "Dir::State::lists": directory / "lists",
            "Dir::Cache": directory / "cache",
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferences": preferences,
            "Dir::Etc::preferencesparts": directory / "preferences.d",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Debug::NoLocking": "true",
            "Acquire::Retries": "2",
        }
        if not beside_host:
            settings["Dir::State::status"] = status
        configuration = directory / "apt.conf"
        configuration.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        self._environment = os.environ | {"APT_CONFIG": str(configuration), "LC_ALL": "C"}

    def update(self) -> None:
        """Fetch the index, and have apt check its signature, unless that was done lately."""
        timestamp = self._directory / "updated"
        if timestamp.exists() and time.time() - timestamp.stat().st_mtime < INDEX_GOOD_FOR_S:
            return
        self._apt("apt-get", "update")
        timestamp.touch()

    def names(self, pattern: str) -> list[re.Match[str]]:
        """Return the matches of all package names that a pattern describes as a whole; at least one."""
        names = self._apt("apt-cache", "pkgnames").split()
        found = [match for match in (re.fullmatch(pattern, name) for name in names) if match]
        if not found:
            raise ArchiveChanged(f"no package is called {pattern!r} any more: see tests/rig/assembly.py")
        return found

    def versions(self, names: Sequence[str]) -> list[str]:
        """Return `name=version` of packages and of all that they need, in a fixed order."""
        planned = self._apt("apt-get", "install", "--no-install-recommends", "--simulate", *names)
        return sorted(re.findall(r"^Inst (\S+ .*)", planned, re.MULTILINE))

    def unpack(self, names: Sequence[str], into: Path, *, needs: bool = True) -> None:
        """Fetch packages, and what they need, and unpack them into a directory."""
        archives = self._directory / "cache" / "archives"
        for package in archives.glob("*.deb"):
            package.unlink()
        if needs:
            self._apt("apt-get", "install", "--no-install-recommends", "--download-only", "--yes", *names)
        else:
            self._apt("apt-get", "download", *names, cwd=archives)
        into.mkdir(parents=True, exist_ok=True)
        # base-files first, which has the links from /bin and /lib into /usr.
        for package in sorted(archives.glob("*.deb"), key=lambda path: (not path.name.startswith("base-files"), path)):
            subprocess.run(["dpkg-deb", "--extract", package, into], check=True)
            package.unlink()

    def _apt(self, *words: str | Path, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [*words, *(("-q",) if words[0] == "apt-get" else ())],
            env=self._environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = f"{' '.join(map(str, words))}: {done.stderr.strip()}"
            raise (ArchiveUnreachable if _NO_WAY_THERE.search(done.stderr) else ArchiveChanged)(said)
        return done.stdout


def _site() -> str:
    """Return where the host's own apt gets Debian's packages from."""
    if "USPCAP_RIG_ARCHIVE" in os.environ:
        return os.environ["USPCAP_RIG_ARCHIVE"]
    form = "$(REPO_URI) $(ORIGIN) $(RELEASE)"
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in targets.stdout.splitlines():
        site, origin, suite = line.split()[:3]
        if origin == "Debian" and "security" not in suite and "security" not in site:
            return site
    raise ArchiveUnreachable("the host's apt knows no Debian archive: run 'apt-get update', or set USPCAP_RIG_ARCHIVE")
