"""The page of a report on analyses: warnings first, then a section for each analysis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from uspcap.analysis.base import clock_stepped
from uspcap.report.format import byte_count, count, duration, plural, safe_text, timestamp
from uspcap.report.headlines import rate, timestamps, timestamps_span_ns
from uspcap.report.model import Page, Section
from uspcap.report.order import order_sentences
from uspcap.report.sections import sections

if TYPE_CHECKING:
    from uspcap.report.document import RunReport

FILES_NAMED: Final = 3

_NAME_CELLS: Final = 12


def report_page(report: RunReport, top: int | None = None) -> Page:
    """Return the page of a report.

    Parameters
    ----------
    report : RunReport
    top : int, optional
        Rows of each list; without it as many as suit the list.
    """
    warnings = _warnings(report)
    page = Page("uspcap", _files(report.source["files"]), cut=True)
    _header(page.head, report)
    said = list(order_sentences(report.source.get("order")))
    if said:
        order = page.section("Order of frames in time", "warning")
        for sentence in said:
            order.paragraph(sentence)
    if warnings:
        page.section("Read this first", "warning").warnings(warnings)
    shown, unknown = sections(report, top)
    for section in shown:
        section.tone = "subject"
        if section.timed and warnings:
            section.aside = f"read with {'[1]' if len(warnings) == 1 else f'[1]-[{len(warnings)}]'} above"
    page.sections += shown
    if unknown:
        page.section().paragraph(f"Only in the JSON report: {', '.join(unknown)}.", "note")
    _closing(page, report.source)
    return page


def _header(head: Section, report: RunReport) -> None:
    source = report.source
    packets, size = source["packets"], source["bytes_on_wire"]
    first, last = source["first_timestamp_ns"], source["last_timestamp_ns"]
    span = timestamps_span_ns(report)
    read = source.get("packets_read", packets)
    text = f"{count(packets)}{f' of {count(read)}' if read != packets else ''}, {byte_count(size)} on the wire"
    if source["bytes_captured"] != size:
        text += f", {byte_count(source['bytes_captured'])} captured"
    rows = [("packets", text)]
    if source["filter"]:
        rows.append(("filter", source["filter"]))
    if first is not None:
        rows.append(("first", timestamp(first)))
    if span:
        steps = "without steps" if clock_stepped(source) else "in total"
        rows.append(("last", f"{timestamp(last)}  ({duration(span)} {steps})"))
    if span:
        rows.append(("rate", f"{rate(source, span, timestamped_only=True)} on average"))
    rows += [("link", ", ".join(source["link_types"])), ("timestamps", str(timestamps(source)))]
    head.facts([(name, text) for name, text in rows if text], _NAME_CELLS, cut=True)
    if not packets:
        matched = "matches the filter" if source["filter"] else "is in the input"
        head.line(f"No packet {matched}.", "caution")
    if source["problems"]:
        problems = plural(len(source["problems"]), "problem")
        head.line(f"{problems} with the input, listed at the end", "alarm")


def _files(files: list[str]) -> str:
    named = [safe_text(file) for file in files[:FILES_NAMED]]
    more = len(files) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")


def _warnings(report: RunReport) -> list[str]:
    """Return the warnings that apply to every number below."""
    source = report.source
    results = report.analyses.values()
    warnings = [warning for result in results for warning in getattr(result, "warnings", ())]
    # Most analyses say the same.
    warnings += dict.fromkeys(caveat for result in results for caveat in getattr(result, "caveats", ()))
    if source.get("mirror_copies"):
        warnings.append(_mirror_copies(source["mirror_copies"], is_live="accounts" in source))
    drops = {name: dropped for name, dropped in source["interface_drops"].items() if dropped}
    if drops:
        where = ", ".join(f"{count(dropped)} on interface {name}" for name, dropped in drops.items())
        warnings.append(
            f"the capturing host dropped frames ({where}): a gap may be loss of the capture, not of the traffic"
        )
    if source["truncated"]:
        warnings.append("the input ends in the middle of a record: packets after that are not in this report")
    return warnings


def _mirror_copies(found: dict[str, Any], *, is_live: bool) -> str:
    """Return the warning about mirror copies."""
    copies, compared = found["copies"], found["compared"]
    changed = [
        f"{100 * found[f'{name}_changed'] / copies:.3g} % of these with another {what}"
        for name, what in (("ttl", "TTL"), ("vlan", "VLAN"))
        if found[f"{name}_changed"]
    ]
    how = f", {' and '.join(changed)}" if changed else ""
    if not found["identified"]:
        return (
            f"{100 * copies / compared:.3g} % of the packets compared of those without an identification, as of IPv6 "
            f"({count(copies)} of {count(compared)}, a sample) are the same as one received on the same interface "
            f"shortly before, 90 % of them within {duration(found['most_within_ns'])}{how}: a mirror port that sees "
            "packets entering and leaving, a loop, or a sender that repeats each of them; packets, rates, duplicates "
            "and retransmissions count each one, and --dedup leaves none of them out"
        )
    remedy = "" if is_live else "; --dedup leaves copies out"
    return (
        f"{100 * copies / compared:.3g} % of the packets compared ({count(copies)} of {count(compared)}, a "
        f"sample) are copies of one received on the same interface shortly before, 90 % of them within "
        f"{duration(found['most_within_ns'])}{how}: a mirror port that sees packets entering and leaving, or a loop; "
        f"packets, rates, duplicates and retransmissions count each copy{remedy}"
    )


def _closing(page: Page, source: Mapping[str, Any]) -> None:
    if source["notes"]:
        notes = page.section("Notes")
        for note in source["notes"]:
            notes.paragraph(note)
    if source["problems"]:
        problems = page.section(f"Problems ({len(source['problems'])})", "problem")
        for problem in source["problems"]:
            frame = "" if problem.get("frame") is None else f", frame {problem['frame']:,}"
            where = f"{problem['file']}, byte {problem['offset']:,}{frame}"
            problems.paragraph(f"{where}: {problem['what']}", "problem")
