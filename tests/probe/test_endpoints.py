"""Addresses as users write them, and sockets that the system grants or refuses."""

from __future__ import annotations

import socket

import pytest

from uspcap.errors import CaptureError, UsageError
from uspcap.probe.endpoints import Endpoint, open_socket, parse_endpoint


@pytest.mark.parametrize(
    ("text", "default", "host", "port"),
    [
        ("127.0.0.1:7000", None, "127.0.0.1", 7000),
        ("[::1]:7000", None, "::1", 7000),
        ("[fe80::1%lo]:9", None, "fe80::1%lo", 9),
        ("192.0.2.1", 0, "192.0.2.1", 0),
        ("192.0.2.1:65535", 0, "192.0.2.1", 65535),
        ("2001:db8::1", 0, "2001:db8::1", 0),
        ("[2001:db8::1]", 4, "2001:db8::1", 4),
    ],
)
def test_addresses_are_taken_as_written(text: str, default: int | None, host: str, port: int) -> None:
    endpoint = parse_endpoint(text, default)
    assert (endpoint.host, endpoint.port) == (host, port)
    assert endpoint.family == (socket.AF_INET6 if ":" in host else socket.AF_INET)
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:7x",
        "localhost:7",
        "::1:7",
        "[127.0.0.1]:7",
        "[]:7",
    ],
)
def test_what_is_no_address_with_a_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_endpoint(text)


def test_a_socket_has_kernel_timestamps_and_a_time_out_and_is_bound() -> None:
    with open_socket(Endpoint("127.0.0.1", 0), None) as opened:
        host, port = opened.getsockname()
        assert host == "127.0.0.1"
        assert port
        assert opened.getsockopt(socket.SOL_SOCKET, 37) == 0x18  # SO_TIMESTAMPING: RX_SOFTWARE | SOFTWARE
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)[8:] != bytes(8)
        assert opened.getblocking()


def test_an_address_in_use_is_named() -> None:
    with open_socket(Endpoint("127.0.0.1", 0), None) as opened:
        port = opened.getsockname()[1]
        with pytest.raises(CaptureError, match=rf"cannot bind to 127.0.0.1:{port}: .*another port"):
            open_socket(Endpoint("127.0.0.1", port), None)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(CaptureError, match=r"cannot bind to 192\.0\.2\.1:7: .*no such address"):
        open_socket(Endpoint("192.0.2.1", 7), None)


def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(CaptureError, match=r"cannot use interface nosuch0 only: .*ip link"):
        open_socket(Endpoint("127.0.0.1", 0), None, interface="nosuch0")
    with pytest.raises(UsageError, match="no interface 'nosuch0'"):
        open_socket(Endpoint("fe80::1%nosuch0", 7), None)


def test_families_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UsageError, match="IPv4"):
        open_socket(Endpoint("127.0.0.1", 0), Endpoint("::1", 7))
    with pytest.raises(UsageError):
        open_socket(None, None)
