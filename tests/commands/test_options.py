"""Values that options take, and the words of a command line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import assert_one_clear_line, invoke

from uspcap.commands.declared_options import ReadType
from uspcap.commands.options import (
    CompressType,
    CountType,
    DurationType,
    FrameSetType,
    PeriodType,
    SignedDurationType,
    SizeType,
    end_with_problems,
    split_files,
)
from uspcap.frames import LATEST_NS, Problem
from uspcap.quantities import bit_rate

RATE = ReadType(bit_rate, "rate")
SAMPLE = Path(__file__).parents[2] / "sample_captures" / "microburst.pcap"
UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
PREFIXES = {"": 1, "k": 10**3, "K": 10**3, "m": 10**6, "M": 10**6, "G": 10**9, "g": 10**9, "T": 10**12, "t": 10**12}


def refusal(kind: click.ParamType, text: str) -> str:
    with pytest.raises(click.BadParameter) as error:
        kind.convert(text, None, None)
    assert "\n" not in error.value.message
    return error.value.message


@pytest.mark.parametrize("text", ["x", "", "0", "10001", "1.5", "1e3", "-1", "nan", "9" * 5000])
def test_what_is_no_number_within_bounds_is_refused_with_the_bounds(text: str) -> None:
    assert "from 1 to 10,000" in refusal(CountType(1, 10_000), text)


def test_numbers_within_bounds_are_taken() -> None:
    assert [CountType(1, 10_000).convert(text, None, None) for text in ("1", "10000", " 7")] == [1, 10_000, 7]


@given(st.integers(0, 10**9), st.integers(0, 3), st.integers(0, 999), st.sampled_from(list(UNITS_NS)), st.booleans())
def test_durations_are_exact(whole: int, digits: int, decimals: int, unit: str, spaced: bool) -> None:
    number = f"{whole}.{decimals % 10**digits:0{digits}d}" if digits else str(whole)
    exact = Fraction(number) * UNITS_NS[unit]
    text = f"{number}{' ' if spaced else ''}{unit}"
    if exact.denominator == 1 and exact <= LATEST_NS:
        assert DurationType().convert(text, None, None) == exact
    else:
        assert "whole number of nanoseconds" in refusal(DurationType(), text)


@pytest.mark.parametrize(
    "text", ["5", "", "ms", "-1ms", "1.ms", ".5s", "1e3ns", "1 minute", "1ms2us", "1MS", "١ms", "nan s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    assert "250us" in refusal(DurationType(), text)


@pytest.mark.parametrize("kind", [DurationType(), SignedDurationType(), PeriodType()])
def test_a_duration_that_does_not_fit_64_bits_beside_a_time_is_refused(kind: DurationType) -> None:
    assert kind.convert(f"{LATEST_NS}ns", None, None) == LATEST_NS
    assert "146 years" in refusal(kind, f"{LATEST_NS + 1}ns")
    assert "146 years" in refusal(kind, f"{10**39}h")


@pytest.mark.parametrize("kind", [DurationType(), SignedDurationType(), PeriodType(), RATE, SizeType()])
def test_a_number_of_thousands_of_digits_is_refused_with_an_example(kind: click.ParamType) -> None:
    assert "as in" in refusal(kind, "9" * 5000 + {"rate": "G", "size": "G"}.get(kind.name, "s"))


@given(
    st.integers(1, 10**6), st.sampled_from(list(PREFIXES)), st.sampled_from(["", "bit", "bits", "bps", "bit/s", "b/s"])
)
def test_rates_have_decimal_prefixes_and_any_usual_unit(number: int, prefix: str, unit: str) -> None:
    assert RATE.convert(f"{number}{prefix}{unit}", None, None) == number * PREFIXES[prefix]
    assert RATE.convert(f" {number}.5 {prefix}{unit} ", None, None) == int(
        Fraction(2 * number + 1, 2) * PREFIXES[prefix]
    )


@pytest.mark.parametrize("text", ["", "0", "0.4", "-1G", "10X", "G", "10GB/s", "10GB", "10MBps", "1e9", "10 Gi", "١G"])
def test_what_is_no_bit_rate_is_refused_with_an_example(text: str) -> None:
    assert "10G" in refusal(RATE, text)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.none() | st.integers(0, 100)), min_size=1))
def test_frame_sets_hold_the_frames_named(parts: list[tuple[int, int | None]]) -> None:
    text = ", ".join(str(first) if more is None else f"{first}-{first + more}" for first, more in parts)
    ranges = FrameSetType().convert(text, None, None)
    assert [list(one) for one in ranges] == [list(range(first, first + (more or 0) + 1)) for first, more in parts]


@pytest.mark.parametrize("text", ["", ",", "3,", "0", "0-3", "-3", "3-", "9-7", "a", "3-4-5", "3..5", "1.5", "١"])
def test_what_is_no_frame_number_is_refused_with_an_example(text: str) -> None:
    assert "3,7-9" in refusal(FrameSetType(), text)


@pytest.mark.parametrize("kind, value", [(DurationType(), 5), (RATE, 7), (FrameSetType(), (range(1, 2),))])
def test_values_converted_before_stay(kind: click.ParamType, value: object) -> None:
    assert kind.convert(value, None, None) == value


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("tcp", 1),
        ("a.pcap", 1),
        ("a.pcap b.pcapng.gz", 2),
        ("a.pcap tcp port 80", 1),
        ("a.pcap there tcp", 2),
        ("a.pcap - host x.pcap", 2),
        ("- udp", 1),
        ("a.pcap B.PCAP c.zst d.xz e.lz4 f.cap g.dmp h.ntar udp", 8),
        ("a.pcap directory udp", 2),
        ("a.pcap tcp b.pcap", 1),
    ],
)
def test_files_are_what_exists_or_is_named_like_a_capture(
    words: str, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    Path("directory").mkdir()
    split = words.split()
    assert split_files(split) == (split[:files], split[files:])


def test_a_whole_filter_in_one_word_is_no_file_however_long() -> None:
    expression = " or ".join(f"host 10.0.0.{number}" for number in range(255))
    assert split_files(["a.pcap", expression]) == (["a.pcap"], [expression])
    assert split_files(["a.pcap", "tcp[13] & 2 != 0"]) == (["a.pcap"], ["tcp[13] & 2 != 0"])


@given(st.lists(st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=300), min_size=1))
def test_files_and_filter_together_are_all_words_in_their_order(words: list[str]) -> None:
    files, rest = split_files(words)
    assert files + rest == words
    assert files


@pytest.mark.parametrize("reported", [True, False])
def test_no_problems_are_no_end(reported: bool, capsys: pytest.CaptureFixture[str]) -> None:
    end_with_problems([], reported=reported)
    assert capsys.readouterr() == ("", "")


def test_problems_in_a_report_get_one_line_and_others_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    damage = Problem("a\nb.pcap", 24, "the file ends \x1b[31m")
    line = "uspcap: a\\x0ab.pcap: byte 24: the file ends \\x1b[31m"
    for problems, reported, said in (
        ([damage], True, f"{line}\n"),
        ([damage] * 3, True, f"{line} (and 2 more)\n"),
        ([damage], False, f"{line}\n"),
        ([damage, Problem("c", 7, "odd")], False, f"{line}\nuspcap: c: byte 7: odd\n"),
    ):
        with pytest.raises(SystemExit) as ended:
            end_with_problems(problems, reported=reported)
        assert ended.value.code == 1
        assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 10**6),
        ("0.5", 500_000),
        ("100MiB", 100 << 20),
        ("1G", 1 << 30),
        ("2k", 2048),
        ("10kB", 10_000),
        ("1.5 GB", 1_500_000_000),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes_are_as_tcpdump_takes_them_and_in_the_usual_units(text: str, size: int) -> None:
    assert SizeType().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "0.0000001", "1e6", "MiB", "1Gbit", "10X", "1 B"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    assert "100MiB" in refusal(SizeType(), text)


@pytest.mark.parametrize(("text", "period_ns"), [("60", 60 * 10**9), ("1h", 3600 * 10**9), ("5ms", 5 * 10**6)])
def test_periods_are_seconds_where_nothing_else_is_said(text: str, period_ns: int) -> None:
    assert PeriodType().convert(text, None, None) == period_ns


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "x", "1.5"])
def test_what_is_no_period_is_refused(text: str) -> None:
    assert "not a duration" in refusal(PeriodType(), text)


@pytest.mark.parametrize(("text", "level"), [("zstd", 3), ("zstd:1", 1), ("zstd:19", 19), ("none", 0)])
def test_compression_is_a_level_of_zstd(text: str, level: int) -> None:
    assert CompressType().convert(text, None, None) == level


@pytest.mark.parametrize("text", ["", "gzip", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "ZSTD"])
def test_what_is_no_compression_is_refused(text: str) -> None:
    assert "zstd:19" in refusal(CompressType(), text)


def test_what_is_read_or_written_already_is_not_written(tmp_path: Path) -> None:
    capture, link, other = tmp_path / "capture", tmp_path / "link", tmp_path / "other"
    capture.write_bytes(SAMPLE.read_bytes())
    link.symlink_to(capture)
    other.hardlink_to(capture)
    for output in (capture, link, other, tmp_path / "." / "capture"):
        for words in (
            ["analyze", capture, "-o", output],
            ["capture", "-r", capture, "-w", output],
            ["compare", capture, SAMPLE, "--table", output],
            ["compare", SAMPLE, capture, "--only-b", output],
        ):
            assert_one_clear_line(invoke(*words), 2, "is read as well: name another file to write to")
    assert capture.read_bytes() == SAMPLE.read_bytes()
    new = tmp_path / "new"
    ended = invoke("compare", capture, SAMPLE, "--only-a", new, "--table", tmp_path / "." / "new")
    assert_one_clear_line(ended, 2, "is to hold something else as well")
    assert not new.exists()


def test_devices_and_pipes_may_be_written_more_than_once(tmp_path: Path) -> None:
    ended = invoke("compare", SAMPLE, SAMPLE, "--table", "/dev/null", "--only-a", "/dev/null", "--only-b", "/dev/null")
    assert ended.code == 0
