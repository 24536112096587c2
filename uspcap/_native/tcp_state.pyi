COUNTS: tuple[str, ...]
