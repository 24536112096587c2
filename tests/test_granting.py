"""What the hints propose is done here, word for word: root runs the commands, and another user captures."""

import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.capturing import frames_of
from support.own_installation import Installation, as_user, install
from support.traffic import numbered_frame
from support.veth_pairs import HERE, Pair, wait_until

from uspcap.granting import Situation

NOBODY = pwd.getpwnam("nobody")
STRANGER = pwd.getpwnam("daemon")
CAPTURES = {"packet_mmap": ["--backend", "packet_mmap"], "af_xdp": ["--backend", "af_xdp", "-B", "2048", "udp"]}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="granting capabilities needs root"),
    pytest.mark.usefixtures("kernel_bpf"),
]


@pytest.fixture(scope="module")
def reachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a directory that every user can reach; pytest's own are closed."""
    directory = Path("/var/tmp") / f"uspcap-test-{os.getpid()}"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def shared(reachable: Path) -> Installation:
    """Give an installation whose interpreter is a link to that of everybody."""
    return install(reachable / "shared", copied=False)


@pytest.fixture
def own(reachable: Path) -> Iterator[Installation]:
    """Give an installation with an interpreter of its own."""
    installation = install(reachable / "own", copied=True)
    yield installation
    shutil.rmtree(installation.directory)


def captured(pair: Pair, command: list[str], path: Path, **options: object) -> tuple[int, str]:
    """Run a capture of one frame; return its exit code and what it said."""
    errors = path.with_suffix(".stderr")
    with errors.open("wb") as stderr:
        process = subprocess.Popen(pair.here.command(*command), stderr=stderr, **options)  # type: ignore[call-overload]
    try:
        if wait_until(lambda: "timestamps:" in errors.read_text() or process.poll() is not None, 60):
            pair.send(numbered_frame(1))
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
    return code, errors.read_text()


def started_by(user: pwd.struct_passwd, *words: str) -> list[str]:
    """Return the command that starts another as a user who has no privilege at all, to be run by root."""
    # setpriv itself executes with the rights that it had before; the shell has none any more.
    change = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return [*change, "sh", "-c", 'exec "$@"', "sh", *words]


def writable(reachable: Path, name: str) -> Path:
    directory = reachable / name
    directory.mkdir(exist_ok=True)
    directory.chmod(0o777)
    path = directory / "out.pcapng"
    path.unlink(missing_ok=True)
    return path


@pytest.mark.parametrize("backend", CAPTURES)
def test_command_in_the_message_lets_the_user_capture_when_root_runs_it(
    pair: Pair, shared: Installation, reachable: Path, backend: str
) -> None:
    path = writable(reachable, backend)
    words = ["capture", "-i", HERE, "-c", "1", "-w", str(path), *CAPTURES[backend]]
    code, said = captured(pair, started_by(NOBODY, str(shared.program), *words), path)
    assert code == 1
    assert len(said.splitlines()) == 1
    assert "setcap" not in said
    (hint,) = re.findall(r"'(setpriv [^']*) \.\.\.'", said)
    assert shlex.split(hint)[-1] == str(shared.program)
    code, said = captured(pair, [*shlex.split(hint), *words], path)
    assert code == 0, said
    assert "goes on without any capability" in said
    assert frames_of(path) == [numbered_frame(1)]
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)


def test_one_run_has_the_capabilities_that_were_asked_for_and_no_others(shared: Installation) -> None:
    situation = Situation("nobody", NOBODY.pw_gid, str(shared.program), str(shared.interpreter))
    command = situation.for_one_run(["CAP_NET_RAW", "CAP_BPF"]).replace("...", "doctor --format json")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["capabilities"]["evidence"] == "CAP_BPF, CAP_NET_RAW"
    assert found["packet-ring"]["status"] == "ok"


@pytest.mark.parametrize("backend", CAPTURES)
def test_capabilities_of_an_own_interpreter_serve_its_group_and_nobody_else(
    pair: Pair, own: Installation, reachable: Path, backend: str
) -> None:
    interpreter = own.interpreter
    situation = Situation("nobody", NOBODY.pw_gid, str(own.program), str(interpreter), own_interpreter=True)
    assert not situation.can_be_granted_by_file
    for command in situation.for_good(["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"]):
        subprocess.run(["sh", "-c", command], check=True)
    path = writable(reachable, f"own-{backend}")
    words = ["capture", "-i", HERE, "-c", "1", "-w", str(path), *CAPTURES[backend]]

    code, said = captured(pair, started_by(NOBODY, str(own.program), *words), path)
    assert code == 0, said
    assert "goes on without any capability" in said
    assert frames_of(path) == [numbered_frame(1)]
    code, said = captured(pair, started_by(STRANGER, str(own.program), *words), path)
    assert code == 126, said
    assert "Permission denied" in said
    of_everybody = subprocess.run(["getcap", Path("/usr/bin/python3").resolve()], capture_output=True, check=True)
    assert of_everybody.stdout == b""


def test_situation_of_each_installation_is_reported_from_within(own: Installation, shared: Installation) -> None:
    script = (
        "import dataclasses, json; from uspcap.granting import Situation\n"
        "print(json.dumps(dataclasses.asdict(Situation.here()), default=sorted))"
    )

    def situation(installation: Installation) -> dict[str, object]:
        done = subprocess.run(
            [installation.interpreter, "-c", script],
            **as_user(NOBODY.pw_uid, NOBODY.pw_gid),  # type: ignore[call-overload]
            capture_output=True,
            text=True,
            check=True,
        )
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    found = situation(shared)
    assert (found["user"], found["group"]) == ("nobody", NOBODY.pw_gid)
    assert found["program"] == str(shared.program)
    assert found["interpreter"] == str(shared.interpreter.resolve())
    assert found["own_interpreter"] is False
    found = situation(own)
    assert found["interpreter"] == str(own.interpreter)
    assert (found["own_interpreter"], found["everybody_runs_it"]) == (True, True)
    own.interpreter.chmod(0o750)
    os.chown(own.interpreter, 0, NOBODY.pw_gid)
    assert situation(own)["everybody_runs_it"] is False
    own.interpreter.chmod(0o755)
    own.directory.chmod(0o700)
    os.chown(own.directory, NOBODY.pw_uid, NOBODY.pw_gid)
    assert situation(own)["everybody_runs_it"] is False


def test_file_capabilities_that_would_have_no_effect_are_not_proposed() -> None:
    script = "from uspcap.granting import Situation; print(Situation.here().file_capabilities_count)"
    for words, count in (((), "True"), (("setpriv", "--no-new-privs"), "False")):
        done = subprocess.run([*words, sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == count


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_program_that_may_not_be_looked_at_is_still_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / "private"
    private.mkdir(0o700)
    (private / "uspcap").touch()
    monkeypatch.setattr(sys, "argv", [str(private / "uspcap")])
    monkeypatch.setattr(sys, "executable", str(private / "python3"))
    os.seteuid(65534)
    try:
        assert Situation.here().program == "uspcap"
    finally:
        os.seteuid(0)


def test_user_without_a_name_is_a_number() -> None:
    command = Situation("12345", 777, "/opt/my programs/uspcap", "/usr/bin/python3").for_one_run(["CAP_NET_RAW"])
    assert command == (
        "setpriv --reuid=12345 --regid=777 --clear-groups --inh-caps=-all,+net_raw --ambient-caps=-all,+net_raw "
        "'/opt/my programs/uspcap' ..."
    )
    shown = command.replace("'/opt/my programs/uspcap' ...", "sh -c 'id -u; id -g; grep CapEff /proc/self/status'")
    done = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["12345", "777", "CapEff:", f"{1 << 13:016x}"]


@pytest.mark.parametrize(
    ("words", "capability"),
    [
        (("-U",), "in_user_namespace"),
        (("-Ur",), "in_user_namespace"),
    ],
)
def test_user_namespace_is_reported(words: tuple[str, ...], capability: str) -> None:
    script = f"from uspcap.granting import Situation; print(Situation.here().{capability})"
    for command, expected in (([], "False"), (["unshare", *words], "True")):
        done = subprocess.run([*command, sys.executable, "-c", script], capture_output=True, text=True, check=False)
        if "unshare" in done.stderr:
            pytest.skip(f"this machine lacks user namespaces: {done.stderr.strip()}")
        assert done.stdout.strip() == expected, done.stderr


def test_capabilities_out_of_reach_are_those_outside_of_the_bounding_set() -> None:
    script = "from uspcap.granting import Situation; print(sorted(Situation.here().out_of_reach)[:3])"
    everything = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    dropped = ["setpriv", "--bounding-set=-net_raw,-chown"]
    done = subprocess.run([*dropped, sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout != everything.stdout
    assert {0, 13} <= set(json.loads(done.stdout))


def test_commands_of_the_documentation_are_those_that_are_proposed() -> None:
    document = Path(__file__).parents[1] / "docs" / "privileges.md"
    text = " ".join(document.read_text().replace("\\\n", " ").split())
    alice = Situation("alice", 1000, "/home/alice/venv/bin/uspcap", "/usr/bin/python3")
    assert alice.for_one_run(["CAP_NET_RAW"]).removesuffix(" ...") in text
    for command in alice.for_good(["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"]):
        assert command in text
