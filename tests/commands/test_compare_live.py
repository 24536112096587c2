"""`uspcap compare -i` as its options give it to `compare_live`: on veth, in this process."""

from __future__ import annotations

import json
from typing import Any

import click
import jsonschema
import pytest
from click.testing import CliRunner, Result
from support.live_pairs import ADDRESS, LivePair
from support.veth_pairs import HERE

from uspcap.commands.compare_live import compare_live, live_options
from uspcap.errors import UsageError
from uspcap.report.live_comparison import load_schema

QUICK = ("--runs", "2", "--run-duration", "150ms", "--warm-up", "30ms", "--cool-down", "20ms")


@click.command()
@click.argument("expression", default="")
@click.option("--format", "form", default="text")
@live_options
def command(expression: str, form: str, **options: Any) -> None:
    compare_live(expression, form, **options)


def run(live_pair: LivePair, *words: str) -> Result:
    with live_pair.here.entered():
        return CliRunner().invoke(
            command,
            ["-i", HERE, "--probe", ADDRESS, "--probe-namespace", live_pair.pair.there.name, *QUICK, *words],
            catch_exceptions=False,
        )


def test_json_is_one_document_on_stdout_and_keeps_to_its_schema(live_pair: LivePair) -> None:
    done = run(
        live_pair, "--format", "json", "--paths", "kernel,af-xdp", "--seed", "9", "--rate", "3k", "--size", "128"
    )
    report = json.loads(done.stdout)
    jsonschema.validate(report, load_schema(), jsonschema.Draft202012Validator)
    assert list(report["paths"]) == ["kernel", "af_xdp"]
    assert report["design"]["seed"] == 9
    assert report["traffic"]["schedule"] == {"kind": "poisson", "rate_per_s": 3000.0, "seed": 9}
    for path in report["paths"].values():
        assert path["received"] == path["frames"] > 0
        assert path["cost"]["bytes_copied_per_frame"] >= 128
    assert "run 4 of 4" in done.stderr


def test_text_begins_with_the_verdict(live_pair: LivePair) -> None:
    done = run(live_pair, "--wakeup", "spin", "udp and src host 10.77.0.2")
    assert done.stdout.startswith(f"uspcap compare {HERE}\n")
    assert done.stdout.splitlines()[2].strip().startswith("Insufficient n for a verdict: 2 pairs of runs")
    assert "udp and src host 10.77.0.2" in done.stdout


def test_filter_that_matches_no_probe_ends_with_an_error(live_pair: LivePair) -> None:
    with pytest.raises(Exception, match="no probe to UDP port 7000 came"):
        run(live_pair, "src host 10.77.0.99")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--paths", "kernel,dpdk"], "no path 'dpdk'"),
        (["--paths", "kernel"], "2 to 6"),
        (["--probe-namespace", "there"], "where to send them"),
        (["--run-duration", "100ms"], "leave nothing of a run"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CliRunner().invoke(command, ["-i", "none0", *words], catch_exceptions=False)


def test_every_option_says_what_it_is_for() -> None:
    shown = CliRunner().invoke(command, ["--help"]).stdout
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.name == "form" or parameter.help, parameter.name
    assert "nothing is sent without" in " ".join(shown.split())
