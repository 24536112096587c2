import bz2
import gzip
import io
import lzma
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uspcap.errors import MissingFeature
from uspcap.formats import decompression

lz4_frame = pytest.importorskip("lz4.frame")
zstandard = pytest.importorskip("zstandard")

COMPRESSORS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lz4": lambda data: lz4_frame.compress(data, content_checksum=True),
}
ALL = pytest.mark.parametrize("compression", sorted(COMPRESSORS))
SKIPPABLE_FRAME = struct.pack("<II", 0x184D2A53, 5) + b"whatever"[:5]


def decompress(compression, compressed, piece_bytes=1 << 16):
    """Return what came out and what was said about damage."""
    stream = io.BytesIO(compressed)
    out = []
    try:
        for piece in decompression.decompress(compression, lambda: stream.read(piece_bytes), "test"):
            out.append(piece)
    except decompression.Damage as damage:
        return b"".join(out), str(damage)
    return b"".join(out), None


@ALL
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_chains_of_streams_come_out_joined_however_they_are_cut_into_pieces(compression, data):
    parts = data.draw(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
    compressed = b"".join(COMPRESSORS[compression](part) for part in parts)
    piece_bytes = data.draw(st.integers(1, len(compressed)))
    assert decompression.detect(compressed[: decompression.MAGIC_BYTES]) == compression
    assert decompress(compression, compressed, piece_bytes) == (b"".join(parts), None)


def boundaries(compression, parts):
    """Return where in the compressed chain a cut leaves only whole streams."""
    at = {0}
    for part in parts:
        at.add(max(at) + len(COMPRESSORS[compression](part)))
    return at


@ALL
def test_a_cut_at_every_byte_delivers_a_prefix_and_is_said(compression):
    parts = [bytes(range(256)) * 3, b"second" * 40]
    compressed = b"".join(COMPRESSORS[compression](part) for part in parts)
    whole = boundaries(compression, parts)
    for cut in range(len(compressed)):
        out, problem = decompress(compression, compressed[:cut], 100)
        assert b"".join(parts).startswith(out)
        assert (problem is None) == (cut in whole), cut
        if cut > min(whole - {0}):
            assert out.startswith(parts[0]), cut


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_cut_that_takes_only_the_checksum_keeps_all_data(compression):
    content = bytes(range(256)) * 3
    compressed = COMPRESSORS[compression](content)
    for missing in range(1, 5):
        out, problem = decompress(compression, compressed[:-missing])
        assert out == content
        assert "cut" in problem


@ALL
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_a_flipped_byte_ends_in_whole_data_or_a_problem(compression, data):
    content = b"".join(struct.pack("<QQ", i, i * i) for i in range(64))
    compressed = bytearray(COMPRESSORS[compression](content))
    # Behind the magic number, which decides on the kind of file.
    at = data.draw(st.integers(decompression.MAGIC_BYTES, len(compressed) - 1))
    compressed[at] ^= data.draw(st.integers(1, 255))
    out, problem = decompress(compression, bytes(compressed), data.draw(st.integers(1, 200)))
    if problem is None:
        assert out == content  # a field that has no part in the data, such as gzip's time
    else:
        assert problem.startswith(f"the {compression} data")


@ALL
@settings(deadline=None, max_examples=100)
@given(garbage=st.binary(max_size=300))
def test_garbage_behind_a_magic_number_never_escapes_as_another_error(compression, garbage):
    decompress(compression, decompression.MAGIC[compression] + garbage, 64)


@ALL
def test_what_follows_the_last_stream_is_said_and_the_data_kept(compression):
    compressed = COMPRESSORS[compression](b"payload" * 20)
    out, problem = decompress(compression, compressed + b"trailing garbage")
    assert out == b"payload" * 20
    assert problem == f"the {compression} data is followed by bytes that are no {compression} data, " + (
        "which were not read"
    )
    out, problem = decompress(compression, compressed + bytes(511))
    assert out == b"payload" * 20
    assert "followed by zero bytes" in problem


def test_padding_between_xz_streams_is_no_damage():
    compressed = lzma.compress(b"one") + bytes(8) + lzma.compress(b"two") + bytes(4)
    assert decompress("xz", compressed) == (b"onetwo", None)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_skippable_frames_are_passed_over(compression):
    compress = COMPRESSORS[compression]
    chain = compress(b"one") + SKIPPABLE_FRAME + compress(b"two") + SKIPPABLE_FRAME
    for piece_bytes in (1, 7, 1000):
        assert decompress(compression, chain, piece_bytes) == (b"onetwo", None)
    out, problem = decompress(compression, chain[:-1])
    assert (out, problem) == (b"onetwo", f"the {compression} data is cut in the middle of a skippable frame")


def test_a_leading_skippable_frame_is_taken_for_zstd():
    assert decompression.detect(SKIPPABLE_FRAME) == "zstd"
    assert decompress("zstd", SKIPPABLE_FRAME + COMPRESSORS["zstd"](b"x")) == (b"x", None)


@pytest.mark.parametrize("options", [{}, {"write_content_size": False}, {"write_checksum": True}, {"level": 19}])
def test_zstd_frames_of_every_header_form_come_out(options):
    content = b"".join(struct.pack("<I", i * 2654435761 % 2**32) for i in range(200_000)) + bytes(1_000_000)
    compressor = zstandard.ZstdCompressor(**options)
    streamed = compressor.compressobj()
    compressed = compressor.compress(content) + streamed.compress(content) + streamed.flush()
    assert decompress("zstd", compressed, 1000) == (content * 2, None)


@ALL
def test_no_piece_of_a_bomb_is_longer_than_the_bound(compression):
    content = bytes(24 << 20)
    compressed = COMPRESSORS[compression](content)
    assert len(compressed) < len(content) // 100
    stream = io.BytesIO(compressed)
    lengths = [len(piece) for piece in decompression.decompress(compression, lambda: stream.read(1 << 18), "bomb")]
    assert sum(lengths) == len(content)
    assert max(lengths) <= decompression.PIECE_BYTES


def test_a_damaged_gzip_member_keeps_everything_before_the_damage():
    content = b"".join(struct.pack("<I", i * 2654435761 % 2**32) for i in range(100_000))
    compressed = bytearray(gzip.compress(content, 6))
    compressed[-6] ^= 1  # in the CRC: all of the data lies before
    out, problem = decompress("gzip", bytes(compressed))
    assert out == content
    assert "incorrect data check" in problem


def test_a_window_that_would_take_too_much_memory_is_a_problem():
    parameters = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=0)
    streamed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    out, problem = decompress("zstd", streamed.compress(b"x" * 1000) + streamed.flush())
    assert out == b""
    assert "memory" in problem


@pytest.mark.parametrize(("compression", "module"), [("zstd", "zstandard"), ("lz4", "lz4.frame")])
def test_a_missing_package_is_named_with_its_extra(compression, module, monkeypatch):
    import sys

    if compression == "zstd" and sys.version_info >= (3, 14):
        pytest.skip("this machine lacks a Python older than 3.14, which has zstd in its standard library")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingFeature, match=r"a\.pcap: .*uspcap\[compression\]"):
        decompression.decompress(compression, lambda: b"", "a.pcap")


def test_plain_captures_are_not_taken_for_compressed_ones():
    for magic in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1", b"\x0a\x0d\x0d\x0a", b"\x1f\x8b\x00", b""):
        assert decompression.detect(magic) == ""


def test_gzip_headers_with_a_name_and_a_comment_are_read():
    deflated = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflated.compress(b"abc") + deflated.flush()
    header = b"\x1f\x8b\x08\x18" + bytes(6) + b"name\0comment\0"
    member = header + body + struct.pack("<II", zlib.crc32(b"abc"), 3)
    assert decompress("gzip", member * 2, 1) == (b"abcabc", None)
