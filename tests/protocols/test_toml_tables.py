"""Tables in TOML: what is wrong with one is a sentence that names the key, whatever is in the file."""

from __future__ import annotations

import os
import string
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shared_cases import CASES, needs_cases
from support.toml_text import KEYS, VALUES, spoiled, toml_of

from uspcap.errors import UsageError
from uspcap.protocols.feeds import check_table, find_protocol, protocols
from uspcap.protocols.line_pairs import parse_pairs
from uspcap.protocols.toml_tables import LARGEST_FILE, tables_of

SHIPPED: dict[str, dict[str, Any]] = tomllib.loads(
    (resources.files("uspcap.protocols") / "feeds.toml").read_text(encoding="utf-8")
)
PAIRS = {"unit-1": {"A": "239.1.1.1:30001", "B": "[ff02::1]:3"}, "x": {"l": "1.2.3.4:5", "r": "1.2.3.4:6"}}


def file_of(directory: Path, content: str | bytes) -> str:
    path = directory / "mine.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refusal(path: str, read: Any = find_protocol) -> str:
    with pytest.raises(UsageError) as refused:
        read(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    assert_one_sentence(said)
    return said.removeprefix(f"{path}: ")


def assert_one_sentence(said: str) -> None:
    assert said.isprintable()
    assert len(said) < 1_000


def test_every_shipped_table_is_one_that_a_user_could_have_written() -> None:
    for name, table in SHIPPED.items():
        check_table(table, name)
    assert list(SHIPPED) == protocols()


GOOD = 'numbers = "messages"\nendian = "big"\nheader = 20\nsequence = [10, 8]\ncount = [18, 2]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has 0 tables; a file has one, [name-of-the-protocol]"),
        ("[a]\n[b]\n", "has 2 tables"),
        ("x = [", "not TOML: "),
        ("x = " + "[" * 100_000, "no usable TOML"),
        ("x = " + "9" * 5_000, "not TOML: "),
        ("[a]\nheader = " + "9" * 4_000, "a.header is a number of far too many digits; it must be a whole number from"),
        ("x = 5\n", "x is the number 5; it must be a table of keys"),
        ("[[x]]\n", "x is an array of 1; it must be a table"),
        ('["a\\u001bb"]\n', "the name of its table is the text 'a\\x1bb'; it must be a text of 1 to 64 characters"),
        (f"[{'n' * 65}]\n", "the name of its table is a text of 65 characters"),
        (
            f"[x]\n{GOOD}ports = 1\n",
            "x.ports is the number 1; it must be an array of 0 to 64, each a whole number from",
        ),
        (f"[x]\n{GOOD}ports = [1, 2, 70000]\n", "x.ports[2] is the number 70000; it must be"),
        (f"[x]\n{GOOD}ports = [true]\n", "x.ports[0] is true; it must be a whole number"),
        (f"[x]\n{GOOD}key = [[1]]\n", "x.key[0] is an array of 1; it must be [offset, size]"),
        (f"[x]\n{GOOD}key = [[0, 9], [9, 8]]\n", "x.key has more than 16 bytes in all"),
        (f"[x]\n{GOOD}key = [[-1, 2]]\n", "x.key[0], its offset, is the number -1; it must be a whole number from 0"),
        (f"[x]\n{GOOD}sequnce = 1\n", "x: unknown key 'sequnce': is it 'sequence'?"),
        (f"[x]\n{GOOD}zzzzzz = 1\n", "x: unknown key 'zzzzzz'; it may have checks, count, data, end_count"),
        (f"[x]\n{GOOD}endian = 'big'\n", "not TOML: "),
        (f"[x]\n{GOOD.replace('big', 'middle')}", "x.endian is the text 'middle'; it must be 'big' or 'little'"),
        (f"[x]\n{GOOD.replace('20', '19')}", "x.count ends at byte 20, beyond the header of 19 bytes"),
        (f"[x]\n{GOOD.replace('header', 'wraps')}", "x.wraps is the number 20; it must be true or false"),
        (f"[x]\n{GOOD.replace('header = 20', '')}", "x.header is missing; it must be a whole number from 1 to 65535"),
        (f"[x]\n{GOOD.replace('messages', 'packets')}", "x: numbers of messages need count"),
        (
            f"[x]\n{GOOD}end_count = 65536\n",
            "x.end_count is the number 65536; it must be a whole number from 0 to 65535",
        ),
        (f"[x]\n{GOOD}data = [1]\n", "x.data has no meaning without kind"),
        (f"[x]\n{GOOD}checks = [{{ place = [0, 1] }}]\n", "x.checks[0] needs either values or not"),
        (f"[x]\n{GOOD}checks = [{{ place = [0, 1], values = [256] }}]\n", "x.checks[0].values[0] is the number 256"),
        (f"[x]\n{GOOD}checks = [{{ values = [1] }}]\n", "x.checks[0].place is missing"),
        (f"[x]\n{GOOD}[x.unverified]\nheader = 5\n", "x with its unverified rules.sequence ends at byte 18, beyond"),
        (f"[x]\n{GOOD}[x.unverified]\nverified = true\n", "x.unverified: unknown key 'verified'"),
        (f"[x]\n{GOOD}framing = [1]\n", "x.framing is an array of 1; it must be 'udp' or 'tcp'"),
        ('[x]\nframing = "fix"\nnumbers = "bytes"\n', "x.numbers is the text 'bytes'; it must be 'messages'"),
        ('[x]\nframing = "fix"\nnumbers = "messages"\nheader = 1\n', "x: unknown key 'header'"),
        (b"[x]\ntitle = '\xff'\n", "not UTF-8 at byte 13"),
        (b"[x]\x00", "not TOML: "),
    ],
)
def test_what_is_wrong_with_a_protocol_is_said_with_its_key(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert refusal(file_of(tmp_path, text)).startswith(said)


@needs_cases
@pytest.mark.parametrize(("name", "key"), [("F3-ports-int", "x.ports is the number 1"), ("F3-key", "x.key[0] is an")])
def test_tables_that_were_a_traceback_are_one_sentence(name: str, key: str) -> None:
    assert refusal(str(CASES / "damage" / f"{name}.toml")).startswith(key)


def test_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert find_protocol(file_of(tmp_path, b"\xef\xbb\xbf" + f"[x]\n{GOOD}".encode())).name == "x"


@pytest.mark.parametrize("read", [find_protocol, lambda path: parse_pairs([path])], ids=["protocol", "pairs"])
def test_what_is_no_file_of_tables_is_said(tmp_path: Path, read: Any) -> None:
    (tmp_path / "mine.toml").mkdir()
    assert refusal(str(tmp_path / "mine.toml"), read).startswith("is not a file but a directory")
    os.mkfifo(tmp_path / "pipe.toml")
    assert refusal(str(tmp_path / "pipe.toml"), read).startswith("is not a file but a pipe")
    assert refusal(str(tmp_path / "nosuch.toml"), read).startswith("cannot read: No such file")
    (tmp_path / "large.toml").write_bytes(b"#" * (LARGEST_FILE + 1))
    assert refusal(str(tmp_path / "large.toml"), read).startswith("is larger than 1 MiB")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x]\nA = '1.1.1.1:1'\n", "x: a pair has two lines, not 1"),
        ("[x]\nA = 5\nB = '1.1.1.1:1'\n", "x.A is the number 5; it must be a text of 1 to 100 characters"),
        ("[x]\nA = '1.1.1.1:1'\nB = '1.1.1.1:\\u0661'\n", "x: B=1.1.1.1:"),
        ("[x]\nA = '1.1.1.1:1'\nB = '1.1.1.1:' \n", "x: B=1.1.1.1: is not a line"),
        ("[x]\n'' = '1.1.1.1:1'\nB = '1.1.1.2:1'\n", "the name of a line of x is the text ''; it must be"),
        ("x = 5\n", "x is the number 5; it must be a table of two lines"),
        ("['\x1b']\n", "not TOML: "),
        ("".join(f"[n{at}]\n" for at in range(4_097)), "has 4097 pairs; 1 to 4096"),
    ],
)
def test_what_is_wrong_with_pairs_is_said_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(file_of(tmp_path, text), lambda path: parse_pairs([path])).startswith(said)


def answered(path: str, read: Any) -> None:
    """Read a file: it is taken, or refused in one sentence."""
    try:
        read(path)
    except UsageError as error:
        assert_one_sentence(str(error))


@settings(deadline=None, max_examples=500)
@given(document=spoiled(SHIPPED), unverified=st.booleans())
def test_any_table_is_a_protocol_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], unverified: bool
) -> None:
    path = file_of(tmp_path_factory.getbasetemp(), toml_of(document))
    answered(path, lambda path: find_protocol(path, unverified=unverified))


@settings(deadline=None, max_examples=300)
@given(document=st.one_of(spoiled(PAIRS), st.dictionaries(KEYS, VALUES, max_size=3)))
def test_any_table_is_pairs_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]) -> None:
    path = file_of(tmp_path_factory.getbasetemp(), toml_of(document))
    answered(path, lambda path: parse_pairs([path]))
    answered(path, find_protocol)


@settings(deadline=None, max_examples=300)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(string.printable, max_size=200).map(str.encode),
        st.lists(st.sampled_from(["[", "]", "{", "=", '"', "a", ".", "1", "\n", "'", "#", "[[x]]\n"]), max_size=60).map(
            lambda parts: "".join(parts).encode()
        ),
    )
)
def test_any_bytes_are_tables_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = file_of(tmp_path_factory.getbasetemp(), content)
    answered(path, find_protocol)
    answered(path, lambda path: parse_pairs([path]))
    answered(path, tables_of)
