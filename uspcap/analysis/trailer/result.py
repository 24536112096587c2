"""What timestamps in frames come to."""

from __future__ import annotations

from typing import Annotated

from uspcap.analysis.base import Result
from uspcap.records import Count, OneIn, Quantity, Record, Share, Step, StepBack
from uspcap.stats.histogram import HistogramSummary
from uspcap.timestamps.trailer_decoding import TrailerFormat

FormatName = Annotated[
    str,
    Quantity(
        "trailer_format", "Where frames hold a timestamp.", one_of=tuple(one.name.lower() for one in TrailerFormat)
    ),
]


class FormatEvidence(Record):
    """What speaks for a format."""

    format: FormatName
    possible: Annotated[Count, "Frames that could hold a timestamp of it."]
    found: Count
    share: Share
    backward_steps: Annotated[Count, "Within a device's port."]


class Detection(Record):
    """What the format was told from."""

    frames_looked_at: Count
    formats: Annotated[tuple[FormatEvidence, ...], "The likeliest first."]


class FramesByStatus(Record):
    """Frames by what came of looking for a timestamp."""

    found: Count
    absent: Annotated[Count, "Without room for one."]
    cut: Annotated[Count, "Cut before it."]
    implausible: Annotated[Count, "With bytes there that are no timestamp near the file's."]
    unknown_length: Annotated[Count, "Whose headers do not say where the payload ends."]
    no_file_timestamp: Annotated[Count, "Without a timestamp of the file to compare with."]
    other_link: Annotated[Count, "That are not Ethernet."]
    padding: Annotated[Count, "Records without a frame, left out."]


class Difference(HistogramSummary):
    """The file's timestamps less the trailers'."""

    definition: str
    negative: Annotated[Count, "Trailers later than the file's timestamp, which count in no histogram."]
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

    format: Annotated[FormatName | None, "Null where none were looked for."]
    detection: Annotated[Detection | None, "What the format was told from; null where it was named."]
    frames: FramesByStatus
    degraded: Annotated[Count, "Timestamps of a clock that was not synchronised."]
    duplicates: Annotated[Count, "Frames that are marked as duplicates."]
    bad_fcs: Annotated[Count, "Frames whose original FCS was not valid."]
    finer_than_ns: Annotated[Count, "Timestamps that lost what the trailer said below 1 ns."]
    from_tai: Annotated[Count, "Timestamps of TAI, put on UTC."]
    seconds_extended: Annotated[Count, "Timestamps whose high bits are those of the file's."]
    truncated: Annotated[Count, "Frames that the capturing host truncated."]
    dropped_by_capture: Annotated[Count, "Frames that the capturing host dropped, footers say."]
    difference: Difference
    ports: tuple[PortTimestamps, ...]
    ports_sampled_one_in: OneIn
    warnings: tuple[str, ...]
