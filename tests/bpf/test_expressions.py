"""Taking expressions apart, against libpcap: what is put together again compiles to the same program."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.filter_expressions import ARITHMETIC, SINGLE

from uspcap.bpf import libpcap
from uspcap.bpf.classic import compile_filter
from uspcap.bpf.expressions import NotTakenApart, Term, put_together, take_apart, terms_of
from uspcap.bpf.readings import is_outer, reading_of
from uspcap.bpf.terms import is_taken_apart_right, joined_program
from uspcap.errors import FilterError

needs_libpcap = pytest.mark.skipif(
    libpcap.cypcap_compiler() is None and libpcap.system_compiler() is None,
    reason="no libpcap to compile filters with",
)

TAKEN_APART = [
    "udp port 5 or 6",
    "host 1.2.3.4 and not 5.6.7.8",
    "tcp dst port ftp or ftp-data or domain",
    "not host 1.1.1.1 and 2.2.2.2",
    "src or dst net 10.0.0.0/8",
    "src and dst host 10.0.0.1",
    "net 10.0.0.0 mask 255.0.0.0",
    "net 192.168",
    "port (80 or 443)",
    "host (1.1.1.1 or not 2.2.2.2) and udp",
    "port 53 && !(host 8.8.8.8)",
    "ip6 host 2001:db8::1 or host ::1 or net 2001:db8::/32",
    "ether host 00:01:02:03:04:05 or 00:01:02:03:04:06",
    "ip proto \\tcp or ip6 proto 58",
    "tcp[tcpflags]&tcp-push!=0",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src net 10",
    "((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0",
    "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420",
    "(tcp or udp and port 53) and not (src 1.1.1.1 or src 2.2.2.2)",
    "ip broadcast or ip6 multicast or broadcast",
    "portrange 5000-5010 or less 90",
]


@needs_libpcap
@pytest.mark.parametrize("expression", TAKEN_APART)
def test_libpcap_makes_the_same_of_the_terms(expression):
    node = take_apart(expression)
    assert is_taken_apart_right(node, compile_filter(expression, 1, netmask=0, file_byte_order="little"), "little")


@needs_libpcap
def test_most_expressions_are_taken_apart():
    left = set()
    for expression in (*SINGLE[1:], *ARITHMETIC):
        try:
            node = take_apart(expression)
            program = compile_filter(expression, 1, netmask=0, file_byte_order="little")
        except (NotTakenApart, FilterError):
            left.add(expression)
            continue
        assert is_taken_apart_right(node, program, "little"), expression
    # Kinds of LLC frames are read as tcpdump does only.
    assert all(expression.startswith("llc") for expression in left), left


@needs_libpcap
@given(
    st.recursive(
        st.sampled_from(TAKEN_APART),
        lambda inner: st.one_of(
            inner.map(lambda one: f"not ({one})"),
            st.tuples(inner, st.sampled_from(["and", "or", "&&", "||"]), inner).map(" ".join),
            inner.map(lambda one: f"({one})"),
        ),
        max_leaves=4,
    )
)
def test_whatever_is_joined_is_taken_apart_as_libpcap_does(expression):
    try:
        program = compile_filter(expression, 1, netmask=0, file_byte_order="little")
    except FilterError:
        return
    node = take_apart(expression)
    assert is_taken_apart_right(node, program, "little")
    joined_program(node, 1, 101, "little")
    joined_program(node, 1, 1, "little")


@given(st.text(alphabet="abct p[]()!&|=<>:-+/\\0159.", max_size=40))
def test_any_text_is_taken_apart_or_refused(text):
    try:
        node = take_apart(text)
    except NotTakenApart:
        return
    assert all(isinstance(term, Term) for term in terms_of(node))
    assert put_together(node)


@pytest.mark.parametrize(
    "expression", ["(" * 3000 + "udp" + ")" * 3000, "not " * 3000 + "udp", "-" * 3000 + "1 = 1", "ip[" * 3000]
)
def test_what_is_nested_too_deeply_is_left_whole(expression):
    with pytest.raises(NotTakenApart):
        take_apart(expression)
    assert reading_of(expression).name == "outer"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("len > 100", True),
        ("greater 100", True),
        ("ether host 00:01:02:03:04:05", True),
        ("ether[12:2] = 0x0800", True),
        ("broadcast", True),
        ("ip broadcast", False),
        ("len > ip[2:2]", False),
        ("arp", False),
        ("stp", False),
    ],
)
def test_terms_about_frames_and_lengths_are_about_the_outer_one(expression, expected):
    assert is_outer(take_apart(expression)) is expected


@pytest.mark.parametrize(
    "expression",
    [
        "udp port 5000",
        "not udp",
        "host 10.0.0.1 and greater 100",
        "ip proto 17",
        "proto 6",
        "tcp[13] = 2",
        "ip[9] = 6",
        "ip[8] = 4",
        "port 478",
        "arp",
        "udp[8:2] = 4789",
    ],
)
def test_what_names_no_encapsulation_applies_to_the_innermost_packet(expression):
    assert reading_of(expression).name == "inner"
    assert reading_of(expression, outer=True).name == "outer"


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("vlan", "vlan"),
        ("not vlan and udp", "vlan"),
        ("udp or mpls 5", "mpls"),
        ("pppoes and ip", "pppoes"),
        ("geneve", "geneve"),
        ("vxlan 7", "vxlan"),
        ("udp port 4789", "port 4789"),
        ("not (udp dst port 6081 or tcp)", "port 6081"),
        ("udp port 53 or 2152", "port 2152"),
        ("portrange 4790-4799", "portrange 4790-4799"),
        ("port gtp-user", "port gtp-user"),
        ("ip proto 4", "proto 4"),
        ("ip6 proto 41 or tcp", "proto 41"),
        ("proto 47", "proto 47"),
        ("ip proto gre", "proto gre"),
        ("ip[9] = 47", "ip [ 9 ] = 47"),
        ("udp[2:2] = 0x12b5", "udp [ 2 : 2 ] = 0x12b5"),
        ("ether proto 0x8100", "ether proto 0x8100"),
        ("ether[12:2] = 0x88a8", "ether [ 12 : 2 ] = 0x88a8"),
    ],
)
def test_what_names_an_encapsulation_applies_to_the_outer_frame(expression, named):
    reading = reading_of(expression)
    assert (reading.name, reading.why) == ("outer", f"{named} names an encapsulation")


@pytest.mark.parametrize("expression", ["greater 100", "ether multicast and less 90", "ether proto 0x0806"])
def test_what_is_about_frames_only_applies_to_the_outer_frame(expression):
    assert reading_of(expression).why == "it is about frames and lengths only"


def test_what_is_not_known_applies_to_the_outer_frame():
    assert reading_of("wlan type mgt subtype beacon").why == "it has a term that is read only as tcpdump does"
