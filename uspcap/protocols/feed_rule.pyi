from collections.abc import Sequence

Place = tuple[int, int, bool]

class FeedRule:
    wraps: bool
    number_bits: int
    def __init__(
        self,
        *,
        header_bytes: int,
        sequence: Place,
        count: Place,
        length: Place,
        length_adds: int,
        part: Place,
        keys: Sequence[tuple[int, int]],
        checks: Sequence[tuple[Place, Sequence[int], bool]],
        kinds: Sequence[tuple[Place, Sequence[int]]] | None,
        heartbeat_count: int | None,
        end_count: int | None,
        excluded_count: int | None,
        unnumbered: int | None,
        heartbeat_is_last: bool,
        header_only_is_request: bool,
        wraps: bool,
    ) -> None: ...
