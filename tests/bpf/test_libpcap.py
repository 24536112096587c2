"""Where the compiler comes from, and the numbers of link types."""

import ctypes
import dataclasses
import struct
import sys
from pathlib import Path

import pytest

from uspcap.bpf import libpcap
from uspcap.bpf.classic import compile_filter
from uspcap.errors import MissingFeature


@pytest.fixture(autouse=True)
def forget():
    libpcap.find_compiler.cache_clear()
    libpcap.load_system_library.cache_clear()
    yield
    libpcap.find_compiler.cache_clear()
    libpcap.load_system_library.cache_clear()


def test_link_types_are_mapped_as_libpcap_maps_those_of_files(tmp_path):
    library = libpcap.load_system_library()
    if library is None:
        pytest.skip("no system libpcap to compare with")
    library.pcap_open_offline.restype = ctypes.c_void_p
    library.pcap_datalink.argtypes = (ctypes.c_void_p,)
    path = tmp_path / "empty.pcap"
    for link_type in range(300):
        path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type))
        handle = library.pcap_open_offline(bytes(path), ctypes.create_string_buffer(256))
        assert handle
        mapped = library.pcap_datalink(handle)
        library.pcap_close(handle)
        assert libpcap.DLT_OF_LINKTYPE.get(link_type, link_type) == mapped


def test_cypcap_comes_before_the_systems_library(monkeypatch):
    monkeypatch.setattr(libpcap, "cypcap_compiler", lambda: "cypcap")
    monkeypatch.setattr(libpcap, "system_compiler", lambda: "system")
    assert libpcap.find_compiler() == "cypcap"


def test_without_cypcap_the_systems_library_compiles(monkeypatch):
    monkeypatch.setitem(sys.modules, "cypcap", None)
    assert libpcap.cypcap_compiler() is None
    if libpcap.load_system_library() is None:
        pytest.skip("no system libpcap")
    assert len(compile_filter("udp port 5000", 1)) > 10


@pytest.mark.oracle
def test_with_neither_the_message_says_how_to_get_either(monkeypatch):
    monkeypatch.setitem(sys.modules, "cypcap", None)
    monkeypatch.setattr(libpcap, "SHARED_LIBRARIES", ("libdoes-not-exist.so.9",))
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(MissingFeature, match=r"pip install uspcap\[filters\].*libpcap0.8"):
        compile_filter("ip", 1)


def test_both_compilers_give_programs_for_the_same_expressions():
    compilers = [libpcap.cypcap_compiler(), libpcap.system_compiler()]
    if None in compilers:
        pytest.skip("needs cypcap and the system's libpcap")
    for link_type in (1, 101, 113):
        for order in (None, "little", "big"):
            request = libpcap.Request("ip and udp port 5000", link_type, 262144, False, 0, order)
            assert compilers[0](request) == compilers[1](request)


@pytest.mark.parametrize("find", [libpcap.cypcap_compiler, libpcap.system_compiler])
def test_compiling_leaves_no_file_open(find):
    compiler = find()
    if compiler is None:
        pytest.skip("this libpcap is not there")
    request = libpcap.Request("inbound", 1, 262144, True, 0, "little")
    before = sorted(link.name for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    for _ in range(3):
        with pytest.raises(libpcap.CompileError, match="savefiles"):
            compiler(request)
        assert compiler(dataclasses.replace(request, expression="udp"))
    assert sorted(link.name for link in Path("/proc/self/fd").iterdir() if link.is_symlink()) == before
