"""Which files, interfaces and times are read: the same frames as of a full scan, however untidy the file."""

from __future__ import annotations

import bz2
import gzip
import random
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.capture_files import block, interface, option, packet, pcap_header, pcap_record, section

import uspcap
from uspcap.errors import CaptureFileError, UsageError
from uspcap.formats import open_capture, stretch
from uspcap.frames import TimestampSource
from uspcap.stages.moments import parse_moment
from uspcap.stages.reading import Input, Reading, expand, expand_all, names_files, plan, split_interface

SECOND_NS = 10**9
BEGIN_NS = 1_700_000_000 * SECOND_NS


@pytest.fixture(autouse=True)
def tmp_cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def searched():
    """Search small files, too, at places as close as those in a large file are far apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretch, "SMALLEST_FILE", 0)
        patch.setattr(stretch, "PLACES", 64)
        patch.setattr(stretch, "PLACE_BYTES", 2048)
        yield


def frames_of(planned):
    """Return time and bytes of all frames that are read of some inputs."""
    found = []
    for one in planned.inputs:
        selection = one.selection()
        with one.open() as reader:
            for batch in reader.batches():
                selection.apply(batch)
                found += [(int(batch.timestamp_ns[row]), batch.frame_bytes(row)) for row in range(len(batch))]
    return found


def scanned(path, from_ns, to_ns):
    """Return the same of a file by looking at every frame."""
    found = []
    with open_capture(str(path)) as reader:
        for batch in reader.batches():
            for row in range(len(batch)):
                ns = int(batch.timestamp_ns[row])
                if from_ns <= ns < to_ns and batch.timestamp_source[row] != TimestampSource.NONE:
                    found.append((ns, batch.frame_bytes(row)))
    return found


def iso(ns):
    seconds, rest = divmod(ns, SECOND_NS)
    import datetime

    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def reading(from_ns=None, to_ns=None, **more):
    texts = (None if ns is None else parse_moment(iso(ns)) for ns in (from_ns, to_ns))
    return Reading((), *texts, **more)


def pcap_of(frames, nanosecond=True):
    magic = 0xA1B23C4D if nanosecond else 0xA1B2C3D4
    records = []
    for ns, data in frames:
        second, rest = divmod(ns, SECOND_NS)
        records.append(pcap_record(second, rest if nanosecond else rest // 1000, data))
    return pcap_header(magic=magic) + b"".join(records)


def described(name, resolution):
    return interface(options=option(2, name.encode()) + option(9, bytes([resolution])) + option(0, b""))


def pcapng_of(frames, resolutions=(9, 6)):
    """Return a section whose frames are of several interfaces of different resolution."""
    content = section() + b"".join(described(f"eth{at}", one) for at, one in enumerate(resolutions))
    for at, (ns, data) in enumerate(frames):
        number = at % len(resolutions)
        resolution = resolutions[number]
        ticks = ns * 2 ** (resolution & 0x7F) // SECOND_NS if resolution & 0x80 else ns // 10 ** (9 - resolution)
        content += packet(ticks, data, number)
    return content


def untidy(rng):
    """Return a capture file's content and how it was made; all of it depends on the generator of random numbers."""
    count = rng.randrange(200, 1500)
    step_ns = rng.choice([1_000_000, 100_000_000, 3 * SECOND_NS])
    ns, frames = BEGIN_NS, []
    for number in range(count):
        ns += rng.randrange(2 * step_ns)
        if rng.random() < 0.003:
            ns += 500 * step_ns  # a gap
        frames.append((ns, struct.pack("<I", number) * rng.randrange(1, 30)))
    if rng.random() < 0.5:  # local disorder, by less than the slack
        frames = [frame for _, frame in sorted((ns + rng.randrange(900_000_000), (ns, data)) for ns, data in frames)]
    trouble = rng.choice(["none", "none", "outliers", "step back", "step forward", "heavy disorder", "damage"])
    planted = set()
    if trouble == "outliers":
        for at in rng.sample(range(count), 3):
            ns = rng.choice([0, frames[at][0] - 3600 * SECOND_NS, frames[at][0] + 3600 * SECOND_NS])
            frames[at] = (ns, frames[at][1])
            planted.add(ns)
    elif trouble in ("step back", "step forward"):
        at = rng.randrange(count)
        by = rng.choice([10, 1000]) * step_ns * (-1 if trouble == "step back" else 1)
        frames[at:] = [(ns + by, data) for ns, data in frames[at:]]
    elif trouble == "heavy disorder":
        rng.shuffle(frames)
    form = rng.choice(["pcap", "pcap", "pcapng", "two sections", "gzip", "bzip2", "two headers"])
    at = rng.randrange(count)
    if form == "pcapng":
        content = pcapng_of(frames)
    elif form == "two headers":
        content = pcap_of(frames[:at]) + pcap_of(frames[at:], nanosecond=rng.random() < 0.5)
    elif form == "two sections":
        content = pcapng_of(frames[:at], (9, 6)) + pcapng_of(frames[at:], rng.choice([(6, 9), (3,), (9,), (0x94, 9)]))
    else:
        content = pcap_of(frames)
    if trouble == "damage":
        at = rng.randrange(len(content) // 2, len(content))
        content = content[:at] + rng.randbytes(3000) + content[at + 3000 :]
    compress = {"gzip": gzip.compress, "bzip2": bz2.compress}.get(form, bytes)
    return SimpleNamespace(content=compress(content), frames=frames, planted=planted, trouble=trouble, form=form)


@pytest.mark.parametrize("first_seed", range(0, 400, 40))
def test_a_range_of_an_untidy_file_is_what_a_full_scan_finds(tmp_path, searched, first_seed):
    for seed in range(first_seed, first_seed + 40):
        rng = random.Random(seed)
        capture = untidy(rng)
        path = tmp_path / f"{seed}"
        path.write_bytes(capture.content)
        times = sorted(ns for ns, _ in capture.frames if ns not in capture.planted)
        from_ns, to_ns = sorted(rng.choice(times) + rng.choice([0, 1, -1, SECOND_NS]) for _ in range(2))
        to_ns += from_ns == to_ns
        planned = plan([str(path)], reading(from_ns, to_ns))
        whole = bool(planned.inputs[0].stretch.why_whole)
        found, expected = frames_of(planned), scanned(path, from_ns, to_ns)
        if not whole:
            # Frames elsewhere whose wrong timestamps happen to lie in the range are what only a scan sees.
            expected = [row for row in expected if row[0] not in capture.planted]
            found = [row for row in found if row[0] not in capture.planted]
        if capture.trouble == "damage" and not whole:
            # What a scan does not reach behind damage may be found.
            found = [row for row in found if row in expected]
        assert found == expected, (seed, capture.form, capture.trouble, planned.inputs[0].stretch)


def rising(count, step_ns=SECOND_NS, size=80):
    return [
        (BEGIN_NS + number * step_ns, (struct.pack("<I", number) * (size // 4 + 1))[:size]) for number in range(count)
    ]


@pytest.mark.parametrize("size", [80, 77, 79])
def test_of_a_rising_file_only_the_stretch_is_read(tmp_path, searched, size):
    path = tmp_path / "capture"
    frames = rising(5000, size=size)
    path.write_bytes(pcap_of(frames))
    planned = plan([str(path)], reading(frames[4900][0]))
    (one,) = planned.inputs
    assert not one.stretch.why_whole
    assert one.stretch.begin > path.stat().st_size * 0.9
    assert frames_of(planned) == frames[4900:]
    assert "frame numbers count from there" in one.notes[0]
    planned = plan([str(path)], reading(frames[100][0], frames[200][0]))
    assert planned.inputs[0].stretch.end < path.stat().st_size * 0.1
    assert frames_of(planned) == frames[100:200]


@pytest.mark.parametrize("begin", [0, 4000])
def test_the_stretch_is_read_in_parts_as_well(tmp_path, searched, monkeypatch, begin):
    from uspcap.formats import parts

    monkeypatch.setattr(parts, "SMALLEST_PART", 8192)
    path = tmp_path / "capture"
    frames = rising(6000)
    path.write_bytes(pcapng_of(frames, (9,)))
    (one,) = plan([str(path)], reading(frames[begin][0], frames[5500][0])).inputs
    readers = one.open_parts(4)
    assert len(readers) > 1
    found = []
    for reader, after in zip(readers, [*readers[1:], None], strict=True):
        with reader:
            selection = one.selection()
            for batch in reader.batches():
                selection.apply(batch)
                found += batch.timestamp_ns.tolist()
            assert after is None or parts.continues(reader, after)
    assert found == [ns for ns, _ in frames[begin:5500]]


@pytest.mark.parametrize("searched_bytes", [stretch.SEARCHED_BYTES, 0])
@pytest.mark.parametrize("sections", [(9, 6), (6, 3), (0x94, 9)])
def test_a_further_section_makes_the_file_be_read_whole(tmp_path, searched, monkeypatch, sections, searched_bytes):
    monkeypatch.setattr(stretch, "SEARCHED_BYTES", searched_bytes)
    path = tmp_path / "capture"
    frames = rising(3000)
    path.write_bytes(pcapng_of(frames[:1500], sections[:1]) + pcapng_of(frames[1500:], sections[1:]))
    (one,) = plan([str(path)], reading(frames[2000][0], frames[2100][0])).inputs
    assert one.stretch.why_whole
    assert "read in full" in one.notes[0]


def test_a_large_pcapng_file_is_not_searched_for_further_sections_and_that_is_said(tmp_path, searched, monkeypatch):
    path = tmp_path / "capture"
    frames = rising(5000)
    path.write_bytes(pcapng_of(frames, (9,)))
    for searched_bytes, said in ((stretch.SEARCHED_BYTES, False), (0, True)):
        monkeypatch.setattr(stretch, "SEARCHED_BYTES", searched_bytes)
        (one,) = plan([str(path)], reading(frames[4900][0])).inputs
        assert one.stretch.begin > path.stat().st_size * 0.9
        assert ("further sections" in one.notes[0]) == said


def test_a_compressed_file_is_read_whole_and_that_is_said(tmp_path):
    path = tmp_path / "capture.gz"
    frames = rising(100)
    path.write_bytes(gzip.compress(pcap_of(frames)))
    planned = plan([str(path)], reading(frames[50][0]))
    assert frames_of(planned) == frames[50:]
    assert "compressed" in planned.inputs[0].notes[0]


def test_ends_are_those_of_the_file_but_for_lone_frames_far_off(tmp_path):
    path = tmp_path / "capture"
    frames = rising(2000)
    path.write_bytes(pcap_of(frames))
    assert stretch.ends_of(str(path)) == (frames[0][0], frames[-1][0])
    path.write_bytes(pcap_of([(0, b"x"), *frames, (2_000_000_000 * SECOND_NS, b"x")]))
    assert stretch.ends_of(str(path)) == (frames[0][0], frames[-1][0])
    path.write_bytes(pcap_of([]))
    assert stretch.ends_of(str(path)) is None


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 600), st.integers(0, 5), st.booleans())
def test_ends_found_near_the_end_are_those_of_a_walk(tmp_path_factory, count, cut, packed):
    path = tmp_path_factory.mktemp("ends") / "capture"
    frames = rising(count)
    content = pcap_of(frames)
    content = content[: len(content) - cut]
    path.write_bytes(gzip.compress(content) if packed else content)
    walked = stretch.ends_of(str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretch, "SMALLEST_FILE", 4096)
        assert stretch.ends_of(str(path)) == walked
    last = frames[-1 if not cut else -2][0] if count > bool(cut) else None
    assert walked == (None if last is None else (frames[0][0], last))


def test_offsets_count_over_all_files(tmp_path):
    frames = rising(100)
    for name, some in (("b", frames[:50]), ("a", frames[50:])):
        (tmp_path / name).write_bytes(pcap_of(some))
    asked = Reading((), parse_moment("+10s"), parse_moment("-10s"))
    planned = plan(["b", "a"], asked)
    assert frames_of(planned) == frames[10:89]


def test_frames_without_a_timestamp_are_in_no_range(tmp_path):
    path = tmp_path / "capture"
    simple = block(3, struct.pack("<I", 4) + b"data")
    path.write_bytes(pcapng_of(rising(3), (9,)) + simple)
    (one,) = plan([str(path)], reading(0)).inputs
    selection = one.selection()
    with one.open() as reader:
        kept = 0
        for batch in reader.batches():
            selection.apply(batch)
            kept += len(batch)
    assert kept == 3
    assert "1 frames have no timestamp" in selection.notes("x")[0]


def test_what_counts_from_the_end_is_refused_of_a_pipe():
    with pytest.raises(UsageError, match="read only once"):
        plan(["-"], Reading((), parse_moment("-1m")))
    assert plan(["-"], Reading((), parse_moment("2024-03-05"))).inputs[0].stretch.why_whole


# Interfaces


def interfaces_file(tmp_path):
    path = tmp_path / "tap.pcapng"
    content = section() + described("eth0", 9) + described("1", 9) + described("eth0", 9)
    content += b"".join(packet(BEGIN_NS + at, bytes([at]), at % 3) for at in range(9))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (("eth0",), {0, 2}),
        (("1",), {1}),
        (("2",), {2}),
        (("0", "1"), {0, 1}),
        (("eth0", "1"), {0, 1, 2}),
        ((), {0, 1, 2}),
    ],
)
def test_interfaces_are_named_by_name_before_number(tmp_path, names, kept):
    path = interfaces_file(tmp_path)
    for inputs, asked in (([Input(str(path), names)], Reading()), ([str(path)], Reading(names))):
        found = frames_of(plan(inputs, asked))
        assert {data[0] % 3 for _, data in found} == kept
        assert len(found) == 3 * len(kept)


def test_an_interface_that_there_is_not_is_a_problem_that_names_those_there_are(tmp_path):
    path = interfaces_file(tmp_path)
    (one,) = plan([str(path)], Reading(("eth9", "eth0"))).inputs
    selection = one.selection()
    with one.open() as reader:
        for batch in reader.batches():
            selection.apply(batch)
        (problem,) = selection.problems(str(path), reader.facts.interfaces)
    assert "no interface eth9; there are 0 (eth0), 1 (1), 2 (eth0)" in problem.what


# Names of files


def touch(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(pcap_header())


def test_a_directory_stands_for_the_captures_in_it_in_the_order_of_their_numbers():
    touch("ring/x10.pcap", "ring/x9.pcap", "ring/y.pcap2", "ring/.hidden.pcap", "ring/below/z.pcap")
    Path("ring/README").write_text("no capture")
    Path("ring/empty.pcap").touch()
    assert [one.path for one in expand("ring")] == ["ring/x9.pcap", "ring/x10.pcap", "ring/y.pcap2"]


def test_a_glob_stands_for_what_it_matches():
    touch("a2.pcap", "a10.pcap", "b/c.pcap", "x[1].pcap")
    assert [one.path for one in expand("a*.pcap")] == ["a2.pcap", "a10.pcap"]
    assert [one.path for one in expand("**/*.pcap")] == ["a2.pcap", "a10.pcap", "b/c.pcap", "x[1].pcap"]
    assert [one.path for one in expand("x[1].pcap")] == ["x[1].pcap"]


@pytest.mark.parametrize("word", ["none*.pcap", "empty"])
def test_a_directory_or_glob_without_a_capture_is_refused(word):
    Path("empty").mkdir()
    with pytest.raises(CaptureFileError, match=r"no (capture )?file"):
        expand(word)


def test_a_file_named_again_by_any_path_is_read_once():
    Path("a.pcap").write_bytes(pcap_header() + pcap_record(1_700_000_000, 0, bytes(60)))
    Path("b.pcap").write_bytes(pcap_header() + pcap_record(1_700_000_001, 0, bytes(60)))
    Path("link.pcap").symlink_to("a.pcap")
    Path("hard.pcap").hardlink_to("a.pcap")
    words = ["a.pcap", "b.pcap", "./a.pcap", "link.pcap", "hard.pcap", "?.pcap", "a.pcap@0"]
    inputs = expand_all(words)
    assert [(one.path, one.interfaces, one.repeats) for one in inputs] == [("a.pcap", (), 5), ("b.pcap", (), 1)]
    assert [one.notes for one in plan(inputs, Reading()).inputs] == [
        ["a.pcap was named 6 times, but is read once"],
        ["b.pcap was named 2 times, but is read once"],
    ]
    assert uspcap.analyze(words, "summary")["summary"]["packets"] == 2


def test_interfaces_of_a_file_named_one_by_one_are_read_each_once():
    Path("a.pcap").write_bytes(pcap_header())
    inputs = expand_all(["a.pcap@0", "a.pcap@1", "a.pcap@0"])
    assert [(one.interfaces, one.repeats) for one in inputs] == [(("0",), 1), (("1",), 0)]
    assert [one.interfaces for one in expand_all(["a.pcap@0", "a.pcap"])] == [()]
    inputs = expand_all(["a.pcap@0", "a.pcap@0,1", "a.pcap@1,2,2"])
    assert [(one.interfaces, one.repeats) for one in inputs] == [(("0",), 1), (("1",), 1), (("2",), 0)]


def test_a_name_that_is_not_there_is_left_to_be_opened():
    assert expand("none.pcap") == [Input("none.pcap")]


def test_an_interface_is_named_behind_a_file_a_directory_or_a_glob():
    touch("a.pcap", "b@c.pcap", "veth@if2.pcap", "d/e.pcap")
    assert split_interface("a.pcap@eth0") == ("a.pcap", ("eth0",))
    assert split_interface("a.pcap@eth0,eth1") == ("a.pcap", ("eth0", "eth1"))
    assert split_interface("b@c.pcap") == ("b@c.pcap", ())
    assert split_interface("b@c.pcap@2") == ("b@c.pcap", ("2",))
    assert split_interface("a.pcap@veth0@if2") == ("a.pcap", ("veth0@if2",))
    assert split_interface("-@eth0") == ("-", ("eth0",))
    assert expand_all(["d@eth0", "*.pcap@1"])[:2] == [Input("d/e.pcap", ("eth0",)), Input("a.pcap", ("1",))]


@pytest.mark.parametrize("word", ["tcp[13]&2!=0", "udp", "host", "10.0.0.1", "(tcp", "a@b", "*", "x" * 5000, "\0"])
def test_words_of_a_filter_are_no_files(word):
    assert not names_files(word)
