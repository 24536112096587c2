"""Whether this process may load programs into the kernel."""

import pytest
from support.bpf_samples import returning

from uspcap.bpf.kernel_types import XdpAction
from uspcap.bpf.syscalls import LoadedProgram
from uspcap.errors import MissingFeature, PermissionDenied


@pytest.fixture(scope="session")
def kernel_bpf() -> None:
    """Skip where this process may not load BPF programs; any other refusal is a failure."""
    try:
        LoadedProgram.load(returning(XdpAction.XDP_PASS), name="probe").close()
    except (PermissionDenied, MissingFeature) as reason:
        pytest.skip(f"BPF programs cannot be loaded here: {reason}")
