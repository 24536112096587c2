"""Fixtures for tests that load programs into the kernel."""

import pytest

from uspcap.bpf.builder import Builder
from uspcap.bpf.instructions import R0, exit_insn, mov64_imm
from uspcap.bpf.syscalls import LoadedProgram
from uspcap.errors import MissingFeature, PermissionDenied


@pytest.fixture(scope="session")
def kernel_bpf() -> None:
    """Skip where this process may not load BPF programs; any other refusal is a failure."""
    builder = Builder()
    builder.add(mov64_imm(R0, 2), exit_insn())
    try:
        LoadedProgram.load(builder.build().link(), name="probe").close()
    except (PermissionDenied, MissingFeature) as reason:
        pytest.skip(f"BPF programs cannot be loaded here: {reason}")
