"""Decompress gzip, bzip2, xz, zstd and lz4 streams piece by piece, whatever was put into them.

Each format is a chain of independent streams (gzip members, bzip2 and xz streams, zstd and lz4 frames). All are
read here as a generator of pieces of at most about `PIECE_BYTES`, so that a stream that expands a
million times costs time and never memory. Damage ends the generator with `Damage`, after everything
that was decompressed before it has been yielded.

References
----------
RFC 1952 (gzip); RFC 8878 (Zstandard); The .xz File Format 1.2.1; LZ4 Frame Format Description 1.6.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from uspcap.errors import MissingFeature

PIECE_BYTES = 1 << 20
"""Decompressed bytes asked for in one call: the bound on what one call may allocate."""

MEMORY_LIMIT_BYTES = 256 << 20
"""Refuse xz streams whose dictionary needs more than this; `xz -9` needs 65 MiB."""

ZSTD_WINDOW_BYTES = 128 << 20
"""Refuse zstd frames with a longer window, as the zstd tool does without --long=31."""

BZIP2_BYTES = 256
"""What one call for bzip2 data makes at most: a call that fails takes what it had made with it."""

BZIP2_STARTS = (b"1AY&SY", b"\x17rE8P\x90")
"""What follows the magic and a digit from 1 to 9: a block, or the end of an empty stream."""

ZSTD_BLOCK_BYTES = 128 << 10
"""No zstd block holds or makes more than this (RFC 8878, section 3.1.1.2.4)."""

MAGIC = {
    "gzip": b"\x1f\x8b\x08",
    "bzip2": b"BZh",
    "zstd": b"\x28\xb5\x2f\xfd",
    "xz": b"\xfd7zXZ\x00",
    "lz4": b"\x04\x22\x4d\x18",
}
MAGIC_BYTES = max(len(magic) for magic in MAGIC.values())


class Damage(Exception):
    """The compressed stream is damaged or cut.

    Parameters
    ----------
    what : str
        What is wrong, without position.
    unread : int
        Bytes that were taken from the input and lie behind the damage.
    """

    def __init__(self, what: str, unread: int = 0) -> None:
        super().__init__(what)
        self.unread = unread


class Decompressor(Protocol):
    """One stream, as in `lzma.LZMADecompressor`."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class FrameDecompressor(Protocol):
    """One zstd frame, fed whole blocks; both packages that can do it look like this."""

    def decompress(self, data: bytes, /) -> bytes: ...


def detect(first_bytes: bytes) -> str:
    """Return the compression that the first `MAGIC_BYTES` bytes announce, or '' for none.

    A skippable frame says no more than zstd or lz4; zstd tools (pzstd) begin files with one, lz4's
    never do, so it is taken for zstd.
    """
    for compression, magic in MAGIC.items():
        if first_bytes.startswith(magic):
            return compression if compression != "bzip2" or _is_bzip2(first_bytes) else ""
    return "zstd" if is_skippable(first_bytes[:4]) else ""


def _is_bzip2(first_bytes: bytes) -> bool:
    """Tell whether what follows the three letters, as far as it is there, is bzip2, too."""
    size, start = first_bytes[3:4], first_bytes[4:]
    return size in b"123456789" and any(magic.startswith(start) for magic in BZIP2_STARTS)


def is_skippable(magic: bytes) -> bool:
    """Tell whether four bytes begin a skippable frame, which zstd and lz4 share."""
    return len(magic) == 4 and magic[0] & 0xF0 == 0x50 and magic[1:] == b"\x2a\x4d\x18"


class _Input:
    """The compressed bytes, with look-ahead and push-back."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self.data = b""
        self.start = 0

    def __len__(self) -> int:
        """Bytes at hand."""
        return len(self.data) - self.start

    def fill(self, count: int) -> bool:
        """Have at least `count` bytes at hand; False where the input ends before."""
        while len(self) < count:
            piece = self._read()
            if not piece:
                return False
            self.data = self.data[self.start :] + piece
            self.start = 0
        return True

    def peek(self, count: int) -> bytes:
        """Return up to `count` bytes without taking them."""
        self.fill(count)
        return self.data[self.start : self.start + count]

    def take(self, count: int) -> bytes:
        """Take `count` bytes that are at hand."""
        taken = self.data[self.start : self.start + count]
        self.start += count
        return taken

    def take_piece(self) -> bytes:
        """Take what is at hand, or the next piece of input; empty at the end."""
        return self.take(len(self)) if len(self) else self._read()

    def give_back(self, data: bytes) -> None:
        """Put back what a stream left over; only when nothing else is at hand."""
        assert len(self) == 0
        self.data = data
        self.start = 0

    def skip(self, count: int) -> bool:
        """Pass over `count` bytes; False where the input ends before."""
        while count > 0:
            if not self.fill(1):
                return False
            step = min(count, len(self))
            self.start += step
            count -= step
        return True


class _GzipMember:
    """One gzip member; where it is damaged, what lies before the damage is kept in `salvaged`."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.salvaged = b""

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        data = self._inflate.unconsumed_tail or data
        # zlib throws away the output of a call that fails. The copy (some 40 KiB) lets the call be
        # repeated byte by byte up to the damage.
        before = self._inflate.copy()
        try:
            return self._inflate.decompress(data, max_length)
        except zlib.error:
            pieces = []
            try:
                for at in range(len(data)):
                    pieces.append(before.decompress(data[at : at + 1]))
            except zlib.error:
                self.salvaged = b"".join(pieces)
            raise


class _Bzip2Stream:
    """One bzip2 stream, decompressed in steps so small that damage costs hardly anything before it."""

    def __init__(self) -> None:
        self._stream = bz2.BZ2Decompressor()
        self._failure: Exception | None = None

    @property
    def eof(self) -> bool:
        return self._stream.eof and self._failure is None

    @property
    def needs_input(self) -> bool:
        return self._stream.needs_input and self._failure is None

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._failure is not None:
            raise self._failure
        steps: list[bytes] = []
        made = 0
        while made < max_length:
            try:
                step = self._stream.decompress(data, BZIP2_BYTES)
            except (OSError, EOFError, ValueError) as error:
                if not steps:
                    raise
                self._failure = error  # raised by the next call, after what was made before it
                break
            data = b""
            if step:
                steps.append(step)
                made += len(step)
            if self._stream.eof or (self._stream.needs_input and not step):
                break
        return b"".join(steps)


def decompress(compression: str, read: Callable[[], bytes], name: str) -> Iterator[bytes]:
    """Yield what a chain of compressed streams holds, in pieces of about `PIECE_BYTES` at most.

    Parameters
    ----------
    compression : str
        One of the keys of `MAGIC`.
    read : callable
        Returns the next piece of the compressed input, empty at its end.
    name : str
        The file as the user named it, for messages.

    Raises
    ------
    MissingFeature
        At once, where the package for this compression is not installed.
    Damage
        From the generator, where the input is damaged, cut, or followed by something else.
    """
    source = _Input(read)
    if compression == "gzip":
        return _streams(source, compression, _GzipMember, (zlib.error,))
    if compression == "bzip2":
        return _streams(source, compression, _Bzip2Stream, (OSError, EOFError, ValueError))
    if compression == "xz":
        return _streams(source, compression, _new_xz, (lzma.LZMAError, MemoryError))
    if compression == "lz4":
        return _streams(source, compression, _lz4_factory(name), (RuntimeError,))
    make_frame, error = _zstd_factory(name)
    return _zstd_frames(source, make_frame, error)


def _new_xz() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_LIMIT_BYTES)


def _missing(name: str, package: str) -> MissingFeature:
    return MissingFeature(
        f"cannot read {name}: it is compressed and the Python package {package} is not installed; "
        "install it with: pip install 'uspcap[compression]'"
    )


def _lz4_factory(name: str) -> Callable[[], Decompressor]:
    try:
        from lz4.frame import LZ4FrameDecompressor
    except ImportError as error:
        raise _missing(name, "lz4") from error
    factory: Callable[[], Decompressor] = LZ4FrameDecompressor
    return factory


def _zstd_factory(name: str) -> tuple[Callable[[], FrameDecompressor], type[Exception]]:
    if sys.version_info >= (3, 14):
        from compression import zstd

        window_log = ZSTD_WINDOW_BYTES.bit_length() - 1
        options = {zstd.DecompressionParameter.window_log_max: window_log}
        return lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError
    try:
        import zstandard
    except ImportError as error:
        raise _missing(name, "zstandard") from error
    context = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    return context.decompressobj, zstandard.ZstdError


def _foreign(source: _Input, compression: str) -> Damage:
    """Describe bytes where a further stream could begin and none does."""
    rest = source.peek(MAGIC_BYTES)
    if MAGIC[compression].startswith(rest):
        return Damage(f"the {compression} data is cut within the first bytes of a stream", len(source))
    kind = "zero bytes" if not any(rest) else f"bytes that are no {compression} data"
    return Damage(f"the {compression} data is followed by {kind}, which were not read", len(source))


def _skip_frame(source: _Input, compression: str) -> None:
    """Pass over a skippable frame: magic, length (4 bytes, little-endian), content."""
    header = source.peek(8)
    if len(header) < 8 or not source.skip(8 + int.from_bytes(header[4:], "little")):
        raise Damage(f"the {compression} data is cut in the middle of a skippable frame")


def _streams(
    source: _Input, compression: str, make: Callable[[], Decompressor], errors: tuple[type[Exception], ...]
) -> Iterator[bytes]:
    """Yield the pieces of a chain of gzip members, xz streams or lz4 frames."""
    while source.fill(1):
        if compression == "lz4" and is_skippable(source.peek(4)):
            _skip_frame(source, compression)
            continue
        if compression == "xz" and source.peek(4) == bytes(4):
            source.skip(4)  # stream padding comes in fours
            continue
        if not source.peek(MAGIC_BYTES).startswith(MAGIC[compression]):
            raise _foreign(source, compression)
        stream = make()
        while not stream.eof:
            asked = stream.needs_input
            data = source.take_piece() if asked else b""
            try:
                piece = stream.decompress(data, PIECE_BYTES)
            except errors as error:
                if isinstance(stream, _GzipMember) and stream.salvaged:
                    yield stream.salvaged
                raise Damage(f"the {compression} data is damaged ({_reason(error)})") from error
            if piece:
                yield piece
            elif asked and not data and not stream.eof:
                raise Damage(f"the {compression} data is cut in the middle of a stream")
        source.give_back(stream.unused_data or b"")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _zstd_frames(source: _Input, make: Callable[[], FrameDecompressor], error_type: type[Exception]) -> Iterator[bytes]:
    """Yield the pieces of a chain of zstd frames.

    The decompressors take no bound on their output, and do not tell a cut frame from a short one. So
    the frame's blocks are walked here, and whole blocks are handed over, at most
    `PIECE_BYTES` / `ZSTD_BLOCK_BYTES` in one call.
    """
    while source.fill(1):
        magic = source.peek(4)
        if is_skippable(magic):
            _skip_frame(source, "zstd")
            continue
        if magic != MAGIC["zstd"]:
            raise _foreign(source, "zstd")
        frame = make()
        try:
            yield from _zstd_frame(source, frame)
        except error_type as error:
            raise Damage(f"the zstd data is damaged ({_reason(error)})", len(source)) from error


def _zstd_frame(source: _Input, frame: FrameDecompressor) -> Iterator[bytes]:
    """Yield the pieces of one zstd frame (RFC 8878, section 3.1.1)."""
    cut = "the zstd data is cut in the middle of a frame"
    if not source.fill(5):
        raise Damage(cut)
    descriptor = source.peek(5)[4]
    single_segment = bool(descriptor & 0x20)
    content_size_bytes = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    header_bytes = 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3] + content_size_bytes
    if not source.fill(header_bytes):
        raise Damage(cut)
    frame.decompress(source.take(header_bytes))
    last = False
    while not last:
        end = 0
        room = PIECE_BYTES
        while room > 0 and not last:
            if len(source) < end + 3 and (end or not source.fill(3)):
                break
            header = int.from_bytes(source.data[source.start + end : source.start + end + 3], "little")
            block_type = header >> 1 & 3
            size = header >> 3
            if block_type == 3 or size > ZSTD_BLOCK_BYTES:
                if end:
                    break
                raise Damage("the zstd data is damaged (no block begins where one must)", len(source))
            whole = 3 + (1 if block_type == 1 else size)
            if len(source) < end + whole and (end or not source.fill(whole)):
                break
            end += whole
            room -= ZSTD_BLOCK_BYTES
            last = bool(header & 1)
        if end == 0:
            raise Damage(cut)
        piece = frame.decompress(source.take(end))
        if piece:
            yield piece
    if descriptor & 4:  # the checksum, fed alone so that it cannot take the last block with it
        if not source.fill(4):
            raise Damage(cut)
        frame.decompress(source.take(4))
