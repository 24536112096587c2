import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bpf_samples import returning
from support.filter_expressions import EXPRESSIONS

from uspcap.bpf import kernel_types
from uspcap.bpf.builder import Builder
from uspcap.bpf.instructions import BPF_ADD, BPF_W, R0, R1, R2, R5, alu64_imm, exit_insn, ldx_mem, mov64_imm
from uspcap.bpf.kernel_types import BPF_F_XDP_HAS_FRAGS, Command, MapType, XdpAction, XdpContext
from uspcap.bpf.syscalls import Link, LoadedProgram, Map, call_error, possible_cpus
from uspcap.errors import BpfError, FilterError, MissingFeature, PermissionDenied

kernel = pytest.mark.usefixtures("kernel_bpf")


def array(max_entries: int = 4, value_size: int = 8) -> Map:
    return Map(MapType.BPF_MAP_TYPE_ARRAY, name="numbers", max_entries=max_entries, value_size=value_size)


@kernel
def test_array_gives_back_what_was_put_in() -> None:
    with array() as numbers:
        numbers.update(struct.pack("=I", 3), b"abcdefgh")
        assert numbers.lookup(struct.pack("=I", 3)) == b"abcdefgh"
        assert numbers.lookup(struct.pack("=I", 0)) == bytes(8)


@kernel
def test_per_cpu_array_holds_a_value_for_each_possible_cpu() -> None:
    with Map(MapType.BPF_MAP_TYPE_PERCPU_ARRAY, name="n", max_entries=1, value_size=12) as numbers:
        value = os.urandom(16 * possible_cpus())
        numbers.update(bytes(4), value)
        # Each CPU's twelve bytes are padded to sixteen; the kernel keeps the padding or zeroes it.
        read = numbers.lookup(bytes(4))
        assert len(read) == len(value)
        for cpu in range(possible_cpus()):
            assert read[16 * cpu : 16 * cpu + 12] == value[16 * cpu : 16 * cpu + 12]


@kernel
def test_ring_buffer_map_is_made() -> None:
    with Map(MapType.BPF_MAP_TYPE_RINGBUF, name="r", max_entries=4096, key_size=0, value_size=0) as ring:
        assert ring.fd >= 0


@kernel
def test_key_outside_of_a_map_is_an_error_that_names_both() -> None:
    with array() as numbers, pytest.raises(BpfError, match=r"key 04000000 of the BPF map numbers") as caught:
        numbers.lookup(struct.pack("=I", 4))
    assert caught.value.errno == errno.ENOENT


@kernel
def test_key_or_value_of_wrong_size_never_reaches_the_kernel() -> None:
    with array() as numbers:
        with pytest.raises(ValueError, match="key of the BPF map numbers has 4 bytes, not 3"):
            numbers.lookup(bytes(3))
        with pytest.raises(ValueError, match="value of the BPF map numbers has 8 bytes, not 9"):
            numbers.update(bytes(4), bytes(9))


@kernel
def test_descriptors_do_not_reach_children() -> None:
    with array() as numbers, LoadedProgram.load(returning(2), name="x") as program:
        for fd in (numbers.fd, program.fd):
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        listed = subprocess.run(
            [
                sys.executable,
                "-c",
                "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in range(3, 200)"
                " if os.path.exists(f'/proc/self/fd/{n}') or os.path.islink(f'/proc/self/fd/{n}')])",
            ],
            close_fds=False,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "bpf" not in listed.stdout


@kernel
def test_closed_object_gives_its_descriptor_back_and_refuses_use() -> None:
    numbers = array()
    fd = numbers.fd
    numbers.close()
    numbers.close()
    assert numbers.closed
    assert not Path(f"/proc/self/fd/{fd}").is_symlink()
    with pytest.raises(ValueError, match="Map is closed"):
        numbers.lookup(bytes(4))


@kernel
def test_forgotten_object_gives_its_descriptor_back() -> None:
    numbers = array()
    fd = numbers.fd
    del numbers
    assert not Path(f"/proc/self/fd/{fd}").is_symlink()


@kernel
def test_refused_program_shows_the_last_lines_of_the_verifier() -> None:
    builder = Builder()
    builder.add(ldx_mem(BPF_W, R0, R5, 0), exit_insn())
    with pytest.raises(BpfError, match=r"program bad of 2 instructions: .*R5 !read_ok") as caught:
        LoadedProgram.load(builder.build().link(), name="bad")
    assert "R5 !read_ok" in caught.value.verifier_log
    assert "\n" not in str(caught.value)


@kernel
def test_program_that_exceeds_the_verifier_is_a_filter_error() -> None:
    builder = Builder()
    again = builder.label()
    builder.add(mov64_imm(R0, 0), mov64_imm(R2, 0))
    builder.place(again)
    builder.add(alu64_imm(BPF_ADD, R2, 1))
    builder.jump_if(0xA0, R2, again, immediate=1_000_000)  # BPF_JLT: a loop that the verifier walks through
    builder.add(exit_insn())
    with pytest.raises(FilterError, match="more complex than the kernel's verifier examines"):
        LoadedProgram.load(builder.build().link(), name="long")


@kernel
def test_program_is_found_again_by_its_id() -> None:
    with LoadedProgram.load(returning(1), name="find_me") as program:
        try:
            again = LoadedProgram.by_id(program.info().id)
        except PermissionDenied as reason:
            pytest.skip(str(reason))
        with again:
            assert again.fd != program.fd
            assert again.info().name == b"find_me"
            assert again.info().verified_insns == 2


@kernel
def test_id_of_no_program_is_an_error() -> None:
    with pytest.raises(BpfError, match="id 4294967294"):
        LoadedProgram.by_id(0xFFFFFFFE)


@kernel
@pytest.mark.parametrize("verdict", list(XdpAction))
def test_run_gives_the_verdict_and_the_frame(verdict: XdpAction) -> None:
    frame = os.urandom(100)
    with LoadedProgram.load(returning(verdict), name="x") as program:
        result = program.test_run(frame, repeat=3)
    assert (result.verdict, result.data, result.metadata_length) == (verdict, frame, 0)
    assert result.duration_ns >= 0


@kernel
def test_run_takes_the_context_that_it_is_given() -> None:
    builder = Builder()
    builder.add(ldx_mem(BPF_W, R0, R1, 12), exit_insn())  # xdp_md.ingress_ifindex
    with LoadedProgram.load(builder.build().link(), name="x") as program:
        context = XdpContext(data=0, data_end=64, ingress_ifindex=1)
        assert program.test_run(bytes(64), context=context).verdict == 1


@kernel
def test_frame_without_ethernet_header_is_refused() -> None:
    with LoadedProgram.load(returning(2), name="x") as program, pytest.raises(BpfError, match="13 bytes"):
        program.test_run(bytes(13))


@kernel
def test_link_to_no_interface_is_an_error() -> None:
    with LoadedProgram.load(returning(2), name="x") as program, pytest.raises(BpfError) as caught:
        Link.attach_xdp(program, 0x7FFFFFFF, kernel_types.XDP_FLAGS_SKB_MODE)
    assert caught.value.errno in (errno.ENODEV, errno.EINVAL)


def test_structs_are_laid_out_as_the_kernels(tmp_path: Path) -> None:
    header = Path("/usr/include/linux/bpf.h")
    if not header.exists():
        pytest.skip("no kernel headers to compare with")
    source = r"""
    #include <linux/bpf.h>
    #include <stddef.h>
    #include <stdio.h>
    #define OFFSET(member) printf("%zu\n", offsetof(union bpf_attr, member))
    int main(void) {
        OFFSET(map_name); OFFSET(key); OFFSET(prog_name); OFFSET(expected_attach_type);
        OFFSET(test.ctx_out); OFFSET(test.batch_size); OFFSET(info.info); OFFSET(link_create.flags);
        OFFSET(link_update.old_prog_fd); OFFSET(link_detach.link_fd);
        printf("%zu\n", sizeof(struct xdp_md));
        printf("%zu\n", offsetof(struct bpf_prog_info, name));
        printf("%zu\n", offsetof(struct bpf_prog_info, verified_insns));
        printf("%zu\n", offsetof(struct bpf_link_info, xdp.ifindex));
        return 0;
    }"""
    executable = tmp_path / "offsets"
    try:
        subprocess.run(["cc", "-x", "c", "-", "-o", executable], input=source, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as reason:
        pytest.skip(f"no C compiler: {reason}")
    printed = subprocess.run([executable], capture_output=True, text=True, check=True)
    assert [int(word) for word in printed.stdout.split()] == [
        kernel_types.MapCreate.map_name.offset,
        kernel_types.MapElement.key.offset,
        kernel_types.ProgLoad.prog_name.offset,
        kernel_types.ProgLoad.expected_attach_type.offset,
        kernel_types.TestRun.ctx_out.offset,
        kernel_types.TestRun.batch_size.offset,
        kernel_types.GetInfo.info.offset,
        kernel_types.LinkCreate.flags.offset,
        kernel_types.LinkUpdate.old_prog_fd.offset,
        kernel_types.LinkDetach.link_fd.offset,
        ctypes.sizeof(XdpContext),
        kernel_types.ProgramInfo.name.offset,
        kernel_types.ProgramInfo.verified_insns.offset,
        kernel_types.LinkInfo.ifindex.offset,
    ]


@pytest.mark.parametrize(("text", "cpus"), [("0\n", 1), ("0-1\n", 2), ("0-3,8-11\n", 12), ("0,2,5\n", 6)])
def test_possible_cpus_counts_up_to_the_highest(tmp_path: Path, text: str, cpus: int) -> None:
    (tmp_path / "possible").write_text(text)
    assert possible_cpus(tmp_path / "possible") == cpus


@pytest.mark.parametrize("text", ["", "x\n", "0-\n", "\u0661\u00e9", None])
def test_number_of_cpus_that_sysfs_does_not_tell_is_a_missing_feature(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "possible").write_text(text)
    with pytest.raises(MissingFeature, match="mount sysfs at /sys"):
        possible_cpus(tmp_path / "possible")


def test_error_numbers_become_errors_of_ours() -> None:
    assert isinstance(call_error(Command.BPF_MAP_CREATE, errno.EPERM, "cannot"), PermissionDenied)
    assert isinstance(call_error(Command.BPF_MAP_CREATE, errno.ENOSYS, "cannot"), MissingFeature)
    other = call_error(Command.BPF_MAP_CREATE, errno.EINVAL, "cannot create")
    assert type(other) is BpfError
    assert str(other) == "cannot create: BPF_MAP_CREATE says Invalid argument"


def run_with_capabilities(capabilities: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a Python script with only some capabilities, as user 0."""
    bounding = ",".join(["-all", *(f"+{name}" for name in capabilities.split())])
    return subprocess.run(
        ["setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def with_capabilities(kernel_bpf: None) -> Callable[[str, str], subprocess.CompletedProcess[str]]:
    try:
        probe = run_with_capabilities("bpf net_admin net_raw", "print('ran')")
    except OSError as reason:
        pytest.skip(f"setpriv cannot be run: {reason}")
    if probe.stdout != "ran\n":
        pytest.skip(f"capabilities cannot be dropped here: {probe.stderr.strip()}")
    return run_with_capabilities


@pytest.mark.parametrize(
    ("capabilities", "missing"),
    [("net_raw", "CAP_BPF and CAP_NET_ADMIN are"), ("bpf net_raw", "CAP_NET_ADMIN is")],
)
def test_missing_capability_is_named(
    with_capabilities: Callable[[str, str], subprocess.CompletedProcess[str]], capabilities: str, missing: str
) -> None:
    done = with_capabilities(
        capabilities,
        "from uspcap.bpf.kernel_types import *\n"
        "from uspcap.bpf.syscalls import *\n"
        "from uspcap.errors import PermissionDenied\n"
        f"code = bytes.fromhex('{returning(2).hex()}')\n"
        "try: LoadedProgram.load(code, name='x')\n"
        "except PermissionDenied as error: print(error)",
    )
    assert f"cannot load the BPF program x of 2 instructions: {missing} missing" in done.stdout, done.stderr
    assert "may never have" in done.stdout  # as in a container, whose bounding set lacks it
    assert "--cap-add=NET_ADMIN" in done.stdout


def test_every_filter_loads_with_the_three_capabilities_that_capture_needs(
    with_capabilities: Callable[[str, str], subprocess.CompletedProcess[str]],
) -> None:
    """Without CAP_PERFMON the verifier is stricter about pointers."""
    done = with_capabilities(
        "bpf net_admin net_raw",
        "from uspcap.bpf.classic import compile_filter\n"
        "from uspcap.bpf.kernel_types import *\n"
        "from uspcap.bpf.syscalls import *\n"
        "from uspcap.bpf.xdp_program import *\n"
        "sockets = Map(MapType.BPF_MAP_TYPE_XSKMAP, name=SOCKET_MAP, max_entries=4)\n"
        "counts = Map(MapType.BPF_MAP_TYPE_PERCPU_ARRAY, name=COUNTER_MAP, max_entries=5,\n"
        "             value_size=COUNTER_BYTES)\n"
        f"for expression in {EXPRESSIONS!r}:\n"
        "    program = build_capture_program(compile_filter(expression, 1), queue_count=4,\n"
        "                                    direct_indirect_loads=False)\n"
        "    code = program.link({SOCKET_MAP: sockets.fd, COUNTER_MAP: counts.fd})\n"
        f"    LoadedProgram.load(code, name='x', flags={BPF_F_XDP_HAS_FRAGS}).close()\n"
        "print('all loaded')",
    )
    assert done.stdout == "all loaded\n", done.stderr
