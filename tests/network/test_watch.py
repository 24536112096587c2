"""What happens to an interface is detected and reported: down and up, gone, moved, another's program, more queues."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import pytest
from support.namespaces import MakeNamespace
from support.traffic import numbered_frame
from support.veth_pairs import HERE, MakePair, Pair, wait_until

from uspcap.network import watch as module
from uspcap.network.watch import InterfaceWatch


@dataclass
class MadeUpHook:
    """A hook that has seen as many frames as the test sets."""

    seen: int = 0
    trouble: str = ""
    queues: list[int] = field(default_factory=list)
    programs: tuple[int, ...] = ()

    def fault(self, programs: Collection[int]) -> str:
        self.programs = tuple(programs)
        return self.trouble

    def frames_seen(self) -> int:
        return self.seen

    def follow_queues(self, queues: int) -> str:
        self.queues.append(queues)
        return f"{queues} queues"


Watching = Callable[..., InterfaceWatch]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def watching(pair: Pair, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    """Give a function that watches the near end of the pair, ten times a second."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.1)
    started: list[InterfaceWatch] = []

    def start(**options: object) -> InterfaceWatch:
        with pair.here.entered():
            index = socket.if_nametoindex(HERE)
            started.append(InterfaceWatch(index, HERE, tell=said.append, **options).start())  # type: ignore[arg-type]
        return started[-1]

    yield start
    for one in started:
        one.close()
        one.close()


def test_down_and_up_are_reported_and_counted(pair: Pair, watching: Watching, said: list[str]) -> None:
    watch = watching()
    for lap in range(3):
        pair.here.ip("link", "set", HERE, "down")
        pair.here.ip("link", "set", HERE, "up")
        assert wait_until(lambda lap=lap: sum("up again" in one for one in said) == lap + 1), said
    assert watch.times_down == 3
    assert watch.down_ns > 0
    assert watch.ended == ""
    assert said[0] == "here0 was set down: no frames until it is up"
    assert said[1].startswith("here0 is up again after 0.")


def test_carrier_that_comes_and_goes_is_reported(pair: Pair, watching: Watching, said: list[str]) -> None:
    watching()
    pair.there.ip("link", "set", "there0", "down")
    assert wait_until(lambda: "here0 has lost its carrier" in said)
    pair.there.ip("link", "set", "there0", "up")
    assert wait_until(lambda: any(one.startswith("here0 has a carrier again after ") for one in said))


def test_interface_that_is_gone_ends_the_watch(pair: Pair, watching: Watching, said: list[str]) -> None:
    ended: list[bool] = []
    watch = watching(on_end=lambda: ended.append(True))
    pair.here.ip("link", "delete", HERE)
    assert wait_until(lambda: bool(ended))
    assert watch.ended == "interface here0 is gone"
    assert watch.why_it_failed("bad luck") == "interface here0 is gone"


def test_successor_of_the_same_name_is_no_substitute(pair: Pair, watching: Watching) -> None:
    watch = watching()
    pair.here.ip("link", "delete", HERE)
    pair.here.ip("link", "add", HERE, "type", "bridge")
    assert wait_until(lambda: bool(watch.ended))
    assert watch.ended in ("interface here0 is gone", "interface here0 is gone, and another has its name")


def test_interface_that_moved_is_distinguished_from_one_that_is_gone(
    pair: Pair, make_namespace: MakeNamespace, watching: Watching
) -> None:
    watch = watching()
    pair.here.ip("link", "set", HERE, "netns", make_namespace().name)
    assert wait_until(lambda: bool(watch.ended))
    assert watch.ended == "interface here0 was moved to another network namespace"


def test_interface_that_is_set_down_is_the_end_where_that_is_asked_for(pair: Pair, watching: Watching) -> None:
    watch = watching(down_is_the_end=True)
    pair.here.ip("link", "set", HERE, "down")
    assert wait_until(lambda: bool(watch.ended))
    assert watch.ended == "interface here0 was set down"


def test_other_interfaces_are_no_concern(pair: Pair, watching: Watching, said: list[str]) -> None:
    watch = watching()
    pair.here.ip("link", "add", "br0", "type", "bridge")
    pair.here.ip("link", "set", "lo", "down")
    pair.here.ip("link", "delete", "br0")
    time.sleep(0.3)
    assert (watch.ended, said) == ("", [])
    assert watch.why_it_failed("bad luck") == "bad luck"


def test_port_that_leaves_its_bridge_is_still_there(pair: Pair, watching: Watching, said: list[str]) -> None:
    watch = watching()
    pair.here.ip("link", "add", "br0", "type", "bridge")
    pair.here.ip("link", "set", HERE, "master", "br0")
    pair.here.ip("link", "set", HERE, "nomaster")
    time.sleep(0.3)
    assert (watch.ended, said, watch._deleted) == ("", [], False)


def test_new_name_is_reported_and_followed(pair: Pair, watching: Watching, said: list[str]) -> None:
    watch = watching()
    pair.here.ip("link", "set", HERE, "name", "blue0")
    assert wait_until(lambda: said == ["here0 was renamed to blue0"])
    pair.here.ip("link", "delete", "blue0")
    assert wait_until(lambda: watch.ended == "interface blue0 is gone")


def test_queues_that_are_added_and_taken_away_are_reported(
    make_pair: MakePair, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that only a notice can be why it looks.
    monkeypatch.setattr(module, "LOOK_EVERY_S", 60.0)
    pair = make_pair(queues=4)
    hook = MadeUpHook()
    with pair.here.entered():
        pair.here.set_queues(HERE, rx=2)
        with InterfaceWatch(socket.if_nametoindex(HERE), HERE, tell=said.append, hook=hook).start():
            pair.here.set_queues(HERE, rx=4)
            assert wait_until(lambda: hook.queues == [4])
            pair.here.set_queues(HERE, rx=1)
            assert wait_until(lambda: hook.queues == [4, 1])
    assert said == ["4 queues", "1 queues"]


def test_program_that_is_gone_ends_the_watch_with_what_went_past_it(pair: Pair, watching: Watching) -> None:
    hook = MadeUpHook()
    watch = watching(hook=hook)
    pair.send(*[numbered_frame(number) for number in range(5)])
    hook.seen = 3
    hook.trouble = "it was detached"
    assert wait_until(lambda: bool(watch.ended))
    assert watch.ended == "it was detached"
    assert watch.past_the_hook == 2


def test_hook_that_sees_nothing_of_what_the_interface_receives_is_reported_once(
    pair: Pair, watching: Watching, said: list[str]
) -> None:
    hook = MadeUpHook()
    watch = watching(hook=hook)
    for number in range(40):
        pair.send(numbered_frame(number))
        time.sleep(0.02)
    assert wait_until(lambda: watch.past_the_hook == 40)
    (sentence,) = said
    assert sentence.startswith("here0 has received ")
    assert " frames that its XDP hook did not see: " in sentence
    hook.seen += 3
    pair.send(*[numbered_frame(number) for number in range(3)])
    assert wait_until(lambda: said[-1] == "the XDP hook of here0 sees all frames again")
    assert watch.past_the_hook == 40


def test_hook_that_sees_a_part_is_reported(pair: Pair, watching: Watching, said: list[str]) -> None:
    hook = MadeUpHook()
    watch = watching(hook=hook)
    for number in range(8):
        hook.seen += 25
        pair.send(*[numbered_frame(number) for number in range(100)])
        time.sleep(0.1)
    assert wait_until(lambda: watch.past_the_hook == 600)
    assert len(said) == 1


def test_interface_that_counts_later_than_the_hook_is_no_matter(
    pair: Pair, watching: Watching, said: list[str]
) -> None:
    hook = MadeUpHook()
    watch = watching(hook=hook)
    hook.seen = 400
    for _ in range(4):
        pair.send(*[numbered_frame(number) for number in range(100)])
        time.sleep(0.15)
    assert (said, watch.past_the_hook) == ([], 0)


def test_hook_that_moves_with_the_interface_is_no_matter(pair: Pair, watching: Watching, said: list[str]) -> None:
    hook = MadeUpHook()
    watch = watching(hook=hook)
    for number in range(20):
        hook.seen += 1
        pair.send(numbered_frame(number))
        time.sleep(0.03)
    assert (said, watch.past_the_hook) == ([], 0)


def test_notices_that_found_no_room_are_looked_after(
    pair: Pair, watching: Watching, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that only a notice can be why it looks.
    monkeypatch.setattr(module, "_LOOK_WITHOUT_HOOK_EVERY_S", 60.0)
    watch = watching()
    real = watch._heard.notices

    def lost() -> list[object]:
        real()
        watch._heard.overrun = True
        return []

    monkeypatch.setattr(watch._heard, "notices", lost)
    pair.here.ip("link", "set", HERE, "down")
    assert wait_until(lambda: f"{HERE} was set down: no frames until it is up" in said)


def test_flood_of_notices_does_not_make_it_look_all_the_time(
    pair: Pair, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    watch = watching(hook=MadeUpHook())
    real = watch._look

    def counted(*, last: bool = False) -> None:
        looks.append(time.monotonic())
        real(last=last)

    monkeypatch.setattr(watch, "_look", counted)
    for lap in range(60):
        pair.here.ip("link", "set", HERE, "alias", f"name {lap}")
    assert wait_until(lambda: len(looks) >= 5)
    assert min(later - earlier for earlier, later in itertools.pairwise(looks)) >= module._LOOK_AT_MOST_EVERY_S
