"""Two namespaces with addresses for live comparisons, and settings that are quick."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from support.namespaces import Namespace
from support.veth_pairs import HERE, THERE, MakePair, Pair

from uspcap.comparison.live.experiment import LiveComparison, LiveOutcome
from uspcap.comparison.live.settings import LiveSettings, ProbeTraffic
from uspcap.comparison.schedule import Trim
from uspcap.probe.endpoints import Endpoint

ADDRESS = "10.77.0.1"
PORT = 7000
QUICK = LiveSettings(
    HERE,
    runs=2,
    run_duration_ns=150_000_000,
    trim=Trim(warm_up_ns=30_000_000, cool_down_ns=20_000_000),
    seed=5,
)


class LivePair:
    """A pair whose near end has an address, and comparisons on it."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        pair.here.ip("address", "add", f"{ADDRESS}/24", "dev", HERE)
        pair.there.ip("address", "add", "10.77.0.2/24", "dev", THERE)

    @property
    def here(self) -> Namespace:
        return self.pair.here

    def settings(self, *, rate: int = 2000, size: int = 64, sending: bool = True, **changes: Any) -> LiveSettings:
        traffic = ProbeTraffic(Endpoint(ADDRESS, PORT), self.pair.there.name, rate=Fraction(rate), size=size)
        return replace(QUICK, traffic=traffic if sending else None, **changes)

    def compare(self, progress: Callable[[str], None] = lambda said: None, **changes: Any) -> LiveOutcome:
        with self.here.entered():
            return LiveComparison(self.settings(**changes)).run(progress)


@pytest.fixture
def live_pair(make_pair: MakePair) -> Iterator[LivePair]:
    yield LivePair(make_pair())
