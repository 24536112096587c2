import itertools
import re
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uspcap.bpf.btf import VMLINUX, find_functions, kernel_function_ids
from uspcap.errors import BpfError, MissingFeature

FUNCTION_KIND = 12
# Kind of linux/btf.h, number of members, bytes that follow the first twelve.
KINDS = [
    *[(1, 0, 4), (2, 0, 0), (3, 0, 12), (4, 3, 36), (5, 2, 24), (6, 4, 32), (7, 0, 0), (8, 0, 0), (9, 0, 0)],
    *[(10, 0, 0), (11, 0, 0), (13, 2, 16), (14, 0, 4), (15, 2, 24), (16, 0, 0), (17, 0, 4), (18, 0, 0)],
    (19, 2, 24),
]


def make_btf(types: list[bytes], strings: bytes) -> bytes:
    section = b"".join(types)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(section), len(section), len(strings))
    return header + section + strings


def make_type(kind: int, name: int = 0, members: int = 0, following: int = 0) -> bytes:
    return struct.pack("=III", name, kind << 24 | members, 0) + bytes(following)


@pytest.mark.parametrize("kinds", [KINDS, KINDS[::-1], []], ids=["all kinds before", "reversed", "none before"])
def test_function_is_found_behind_types_of_every_kind(kinds: list[tuple[int, int, int]]) -> None:
    types = [make_type(kind, 0, members, following) for kind, members, following in kinds]
    # The first of the same name is a struct; ids count from 1.
    types += [make_type(4, name=1), make_type(FUNCTION_KIND, name=1)]
    assert find_functions(make_btf(types, b"\0wanted\0"), ["wanted"], "here") == {"wanted": len(types)}


def test_name_that_is_the_tail_of_another_string_is_found() -> None:
    content = make_btf([make_type(FUNCTION_KIND, name=4)], b"\0an_wanted\0")
    assert find_functions(content, ["wanted"], "here") == {"wanted": 1}


def test_absent_function_is_left_out() -> None:
    content = make_btf([make_type(4, name=1), make_type(FUNCTION_KIND, name=3)], b"\0a\0b\0")
    assert find_functions(content, ["a", "b", "c"], "here") == {"b": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too few"),
        (bytes(24), "magic"),
        (make_btf([make_type(4)], b"\0a\0")[:-1], "beyond"),
        (make_btf([make_type(25)], b"\0a\0"), "unknown kind 25"),
        (make_btf([make_type(4, members=9)], b"\0a\0"), "past the end"),
    ],
)
def test_damage_is_named(content: bytes, message: str) -> None:
    with pytest.raises(BpfError, match=message):
        find_functions(content, ["a"], "here")


VALID = make_btf([make_type(1, following=4), make_type(FUNCTION_KIND, name=1)], b"\0a\0")


@given(
    st.binary(max_size=120),
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=4),
)
@example(b"", [])
def test_random_bytes_give_a_result_or_an_error(noise: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(VALID)
    for position, value in changes:
        changed[position] = value
    for content in (noise, VALID[:24] + noise, bytes(changed), bytes(changed) + noise):
        try:
            found = find_functions(content, ["a"], "here")
        except BpfError as error:
            assert str(error).startswith("here: ")
        else:
            assert set(found) <= {"a"}
            assert all(identifier > 0 for identifier in found.values())


def test_kernel_without_type_information_is_a_missing_feature(tmp_path: Path) -> None:
    with pytest.raises(MissingFeature, match="CONFIG_DEBUG_INFO_BTF"):
        kernel_function_ids(["bpf_xdp_metadata_rx_timestamp"], tmp_path / "vmlinux")


@pytest.mark.skipif(not Path(VMLINUX).exists(), reason="this kernel offers no BTF")
def test_ids_in_the_running_kernel_are_those_of_functions() -> None:
    """Count types the slow way, one by one, to the id that the search gave."""
    content = Path(VMLINUX).read_bytes()
    names = ["bpf_xdp_metadata_rx_timestamp", "xdp_do_redirect", "no_such_function_anywhere"]
    found = kernel_function_ids(names)
    listed = set(re.findall(r" [tT] (\w+)$", Path("/proc/kallsyms").read_text(), re.MULTILINE))
    assert set(found) >= {"xdp_do_redirect"} & listed
    assert "no_such_function_anywhere" not in found
    following = {kind: (count and extra // count, 0 if count else extra) for kind, count, extra in KINDS}
    following |= {FUNCTION_KIND: (0, 0), 13: (8, 0)}
    length, strings = struct.unpack_from("=I", content, 12)[0], 24 + struct.unpack_from("=I", content, 16)[0]
    position = 24
    by_identifier = {identifier: name for name, identifier in found.items()}
    for identifier in itertools.count(1):
        if position >= 24 + length or not by_identifier:
            break
        name, info, _ = struct.unpack_from("=III", content, position)
        if identifier in by_identifier:
            end = content.index(b"\0", strings + name)
            assert content[strings + name : end].decode() == by_identifier.pop(identifier)
            assert info >> 24 & 0x1F == FUNCTION_KIND
        each, fixed = following[info >> 24 & 0x1F]
        position += 12 + each * (info & 0xFFFF) + fixed
    assert not by_identifier
