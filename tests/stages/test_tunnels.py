"""Whether tunnels are decoded: as asked, or as the frames of all inputs have it."""

from pathlib import Path
from typing import Any

import pytest
from support.capture_files import pcap_header, pcap_record
from support.header_frames import ethernet, ipv4, mpls, udp, vxlan
from support.shared_cases import CASES, needs_cases

from uspcap.analysis.suite import Settings, analyze_files
from uspcap.formats import parts
from uspcap.report.document import build_report, source_of
from uspcap.stages.reading import PlannedInput
from uspcap.stages.tunnels import choose_tunnels

PLAIN = ethernet(0x0800, ipv4(17, udp()))
TUNNELLED = ethernet(0x0800, ipv4(17, vxlan(PLAIN)))


def file_of(path: Path, frames: list[bytes]) -> PlannedInput:
    path.write_bytes(pcap_header() + b"".join(pcap_record(at, 0, frame) for at, frame in enumerate(frames)))
    return PlannedInput(str(path))


@pytest.mark.parametrize(("tunnelled", "chosen"), [(0, False), (5, False), (6, True), (10, True)])
def test_most_frames_of_an_input_decide(tmp_path: Path, tunnelled: int, chosen: bool) -> None:
    one = file_of(tmp_path / "a.pcap", [TUNNELLED] * tunnelled + [PLAIN] * (10 - tunnelled))
    choice = choose_tunnels([one], asked=None, looks_inside=False)
    assert choice.tunnels is chosen
    said = f"{tunnelled} of 10 frames checked are in VXLAN"
    assert [(decision.option, decision.why) for decision in choice.decisions] == (
        [("--tunnels", said)] if chosen else []
    )
    assert [said in note for _, note in choice.notes] == ([True] if tunnelled and not chosen else [])


@pytest.mark.parametrize(("plain", "chosen"), [(2, True), (3, False), (100, False)])
def test_most_frames_of_all_inputs_decide_for_all(tmp_path: Path, plain: int, chosen: bool) -> None:
    inputs = [file_of(tmp_path / "a.pcap", [PLAIN] * plain), file_of(tmp_path / "b.pcap", [TUNNELLED] * 3)]
    choice = choose_tunnels(inputs, asked=None, looks_inside=False)
    assert choice.tunnels is chosen
    assert [decision.file for decision in choice.decisions] == [inputs[1].path] * chosen
    assert [file for file, _ in choice.notes] == [inputs[1].path] * (not chosen)


def test_a_long_file_weighs_as_many_frames_as_it_has(tmp_path: Path) -> None:
    inputs = [file_of(tmp_path / "a.pcap", [PLAIN] * 60_000), file_of(tmp_path / "b.pcap", [TUNNELLED] * 20_000)]
    assert not choose_tunnels(inputs, asked=None, looks_inside=False).tunnels
    inputs = [file_of(tmp_path / "a.pcap", [PLAIN] * 20_000), file_of(tmp_path / "b.pcap", [TUNNELLED] * 60_000)]
    assert choose_tunnels(inputs, asked=None, looks_inside=False).tunnels


def test_what_applies_to_innermost_packets_decides(tmp_path: Path) -> None:
    one = file_of(tmp_path / "a.pcap", [TUNNELLED] + [PLAIN] * 9)
    choice = choose_tunnels([one], asked=None, looks_inside=True)
    assert choice.tunnels
    assert choice.decisions[0].why.startswith("a filter or rule applies to the innermost packet, and 1 of 10 frames")
    assert not choose_tunnels([file_of(tmp_path / "b.pcap", [PLAIN])], asked=None, looks_inside=True).decisions


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_asked_for_is_done(tmp_path: Path, asked: bool) -> None:
    one = file_of(tmp_path / "a.pcap", [TUNNELLED if not asked else PLAIN] * 10)
    choice = choose_tunnels([one], asked=asked, looks_inside=not asked)
    assert choice.tunnels is asked
    assert not choice.decisions and not choice.notes


@pytest.mark.parametrize("place", ["beginning", "middle", "end"])
def test_every_place_of_a_long_file_is_looked_at(tmp_path: Path, place: str) -> None:
    count = 60_000
    at = {"beginning": 0, "middle": count // 2, "end": count - 3000}[place]
    frames = [PLAIN] * count
    frames[at : at + 3000] = [TUNNELLED] * 3000
    choice = choose_tunnels([file_of(tmp_path / "a.pcap", frames)], asked=None, looks_inside=True)
    assert len(choice.decisions) == 1


def test_a_frame_behind_labels_is_in_a_tunnel_and_a_packet_is_not(tmp_path: Path) -> None:
    behind = file_of(tmp_path / "a.pcap", [ethernet(0x8847, mpls([16], bytes(4) + PLAIN))] * 3)
    assert "are in MPLS pseudowires" in choose_tunnels([behind], asked=None, looks_inside=False).decisions[0].why
    labelled = file_of(tmp_path / "b.pcap", [ethernet(0x8847, mpls([16], ipv4(17, udp())))] * 3)
    assert not choose_tunnels([labelled], asked=None, looks_inside=False).tunnels


def test_parts_of_a_file_decide_and_filter_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SMALLEST_PART", 16_384)
    frames = [TUNNELLED if number % 3 else PLAIN for number in range(3000)]
    path = file_of(tmp_path / "a.pcap", frames).path

    def report(jobs: int, expression: str) -> dict[str, Any]:
        settings = Settings(names=("summary", "inter_arrival", "requests"), expression=expression)
        outcome = analyze_files([path], settings, jobs=jobs)
        made = build_report(
            source_of(outcome, expression), outcome.suite.analyses, reading=outcome.filtered.reading
        ).as_dict()
        assert outcome.tunnels
        return made

    for expression, packets in (("", 3000), ("udp port 4002", 3000), ("udp port 4789", 2000), ("not port 4789", 1000)):
        whole = report(1, expression)
        assert whole["source"]["packets"] == packets
        assert whole["source"]["decisions"][0]["option"] == "--tunnels"
        assert report(4, expression) == whole
    hints = [report(jobs, "not udp port 4002")["source"]["notes"][0] for jobs in (1, 4)]
    assert hints[0] == hints[1]
    assert "but the outer headers of 2,000 frames" in hints[0]


@needs_cases
@pytest.mark.parametrize(("name", "kind"), [("p10_vxlan.pcap", "VXLAN"), ("p10_erspan2.pcap", "ERSPAN")])
def test_mirrored_and_overlaid_feeds_are_found(name: str, kind: str) -> None:
    choice = choose_tunnels([PlannedInput(str(CASES / "files" / name))], asked=None, looks_inside=False)
    assert choice.decisions[0].why == f"299 of 299 frames checked are in {kind}"
