"""Which backend a request gets, and what is refused before one is asked."""

from __future__ import annotations

from typing import Any

import pytest

from uspcap.backends.declaration import Backend, Request, backend_options, backends
from uspcap.backends.opening import chosen_backend, open_source
from uspcap.declared_options import Kind, Option
from uspcap.errors import UsageError

NIC = ("no_such_nic",)
FILE = ("no_such_file.pcap",)


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (Request(NIC), "packet_mmap"),
        (Request(NIC, options={"take_all": True}), "af_xdp"),
        (Request(NIC, options={"take_all": False}), "packet_mmap"),
        (Request(NIC, backend="af_xdp"), "af_xdp"),
        (Request(files=FILE), "replay"),
        (Request(files=FILE, options={"take_all": True}), "replay"),
        (Request(files=FILE, backend="replay"), "replay"),
    ],
)
def test_files_are_replayed_and_frames_are_taken_from_the_kernel_only_where_that_is_asked_for(
    request_: Request, name: str
) -> None:
    assert chosen_backend(request_).name == name


OPTIONS = {
    "--take-all": True,
    "--busy-poll": 20,
    "--xdp": "copy",
    "--no-link-reset": True,
    "--fanout": ("hash", 2),
    "--speed": 2.0,
    "--loops": 2,
}


def test_every_option_of_a_backend_is_tried_here() -> None:
    assert {option.flag for option in backend_options()} == set(OPTIONS)


OWNERS = {option.flag: one for one in backends().values() for option in one.options}


@pytest.mark.parametrize(
    ("flag", "backend"), [(flag, name) for flag in OPTIONS for name in backends() if OWNERS[flag].name != name]
)
def test_options_of_another_backend_are_refused_with_what_to_do(flag: str, backend: str) -> None:
    owner = OWNERS[flag]
    what: dict[str, Any] = {"files": FILE} if backend == "replay" else {"interfaces": NIC}
    options = {flag.removeprefix("--").replace("-", "_"): OPTIONS[flag]}
    instead = {
        (True, True): f"or use --backend {owner.name}",
        (True, False): "or replay a file with -r",
        (False, True): "as frames of files come by replay",
    }[(backend != "replay", owner.name != "replay")]
    with pytest.raises(UsageError) as error:
        open_source(Request(**what, backend=backend, options=options))
    assert str(error.value) == f"{flag} is an option of {owner.name}, and not of {backend}: leave it out, {instead}"


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (Request(), "name the interface to capture on with -i, or a file to replay with -r"),
        (Request(NIC, files=FILE), "frames come from an interface .-i. or from files .-r., not from both"),
        (Request(NIC, backend="replay"), "a replay needs a capture file: name it with -r"),
        (Request(files=FILE, backend="af_xdp"), "files .-r. are replayed, which the backend af_xdp cannot do"),
        (Request(NIC, backend="dpdk"), "there is no backend 'dpdk'; there are af_xdp, packet_mmap, replay"),
        (Request(NIC, backend="af_xdp", direction="out"), "AF_XDP sees received frames only: leave -Q out"),
        (Request(files=FILE, timestamps="hardware"), "frames of files keep the timestamps that they have"),
        (Request(files=FILE, latency_ns=1), "frames of files wait on no ring: leave --latency-target out"),
        (Request(NIC, latency_ns=11 * 10**9), "--latency-target is 10 s at most"),
        (
            Request(NIC, backend="af_xdp", latency_ns=1, options={"busy_poll": 20}),
            "with --busy-poll the reader never waits: leave --latency-target out",
        ),
    ],
)
def test_a_request_that_contradicts_itself_is_refused_in_a_sentence(request_: Request, sentence: str) -> None:
    with pytest.raises(UsageError, match=f"^{sentence}"):
        open_source(request_)


def test_values_go_to_a_source_by_its_arguments_and_what_is_left_out_at_its_default() -> None:
    number = Option(flag="--number-of", argument="number", kind=Kind.COUNT, default=3, help="")
    switch = Option(flag="--on", argument="is_on", kind=Kind.SWITCH, default=False, help="")
    made = Backend(name="x", summary="", reads="files", open=lambda request: None, options=(number, switch))  # type: ignore[arg-type, return-value]
    assert made.values(Request(options={"on": True})) == {"number": 3, "is_on": True}
    assert not made.automatic({})
