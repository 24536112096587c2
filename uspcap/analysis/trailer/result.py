"""The result of `trailer`."""

from __future__ import annotations

from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.records import Count, OneIn, Quantity, Record, Share, Step, StepBack
from uspcap.stats.histogram import HistogramSummary
from uspcap.timestamps.trailer_decoding import TrailerFormat

FormatName = Annotated[
    str,
    Quantity(
        "trailer_format",
        "The format of a timestamp within frames.",
        one_of=tuple(known.name.lower() for known in TrailerFormat),
    ),
]


class FormatEvidence(Record):
    """Evidence for a format."""

    format: FormatName
    possible: Annotated[Count, "Frames that could hold a timestamp of it."]
    found: Count
    share: Share
    backward_steps: Annotated[Count, "Within a device's port."]


class Detection(Record):
    """What the format was detected from."""

    frames_looked_at: Count
    formats: Annotated[tuple[FormatEvidence, ...], "The likeliest first."]


class FramesByStatus(Record):
    """Frames by whether a timestamp was found."""

    found: Count
    absent: Annotated[Count, "With no bytes for one."]
    cut: Annotated[Count, "Truncated before it."]
    implausible: Annotated[Count, "Whose bytes there are no timestamp close to the file's."]
    unknown_length: Annotated[Count, "Whose headers do not say where the payload ends."]
    no_file_timestamp: Annotated[Count, "Without a timestamp in the file to compare with."]
    other_link: Annotated[Count, "That are not Ethernet."]
    padding: Annotated[Count, "Records without a frame, left out."]


class Difference(HistogramSummary):
    """The file's timestamps minus the trailers'."""

    definition: str
    negative: Annotated[Count, "Trailers later than the file's timestamp, counted in no histogram."]
    most_negative_ns: StepBack


class PortTimestamps(Record):
    """Timestamps of one port of a device."""

    device: Annotated[str | None, "Null where the format does not say."]
    port: Annotated[Count | None, "Null where the format does not say."]
    frames: Count
    degraded: Count
    duplicates: Count
    bad_fcs: Count
    negative: Count
    lowest_difference_ns: Step
    highest_difference_ns: Step


class TrailerResult(Result):
    """Timestamps that taps and switches put into frames."""

    format: Annotated[FormatName | None, "Null where none were searched for."]
    detection: Annotated[Detection | None, "What the format was detected from; null where it was given."]
    frames: FramesByStatus
    degraded: Annotated[Count, "Timestamps of a clock that was not synchronised."]
    duplicates: Annotated[Count, "Frames that are marked as duplicates."]
    bad_fcs: Annotated[Count, "Frames whose original FCS was not valid."]
    finer_than_ns: Annotated[Count, "Timestamps rounded down to 1 ns."]
    from_tai: Annotated[Count, "Timestamps in TAI, converted to UTC."]
    seconds_extended: Annotated[Count, "Timestamps with the high bits of the file's timestamp."]
    truncated: Annotated[Count, "Frames that the capturing host truncated."]
    dropped_by_capture: Annotated[Count, "Frames dropped by the capturing host, according to the footers."]
    difference: Difference
    ports: tuple[PortTimestamps, ...]
    ports_sampled_one_in: OneIn
    warnings: tuple[str, ...]
