"""The glossary's retired words stand nowhere."""

from __future__ import annotations

import pytest
from support.retired_words import places, places_in, retired


def test_no_page_text_or_name_has_a_retired_word() -> None:
    assert "\n".join(map(str, places())) == "", "docs/glossary.md says what to write instead"


@pytest.mark.parametrize(
    "text",
    ["a silence of 3 ms", "def told_by(line):", "class LossTeller:", "MOST_SILENCES = 9", "it was sent\n    again"],
)
def test_words_are_found_in_sentences_and_in_names(text: str) -> None:
    (place,) = places_in(text, "page.md", retired())
    assert place.line == 1


@pytest.mark.parametrize("text", ["untold", "installed", "tellurium", '"frames_unstamped": 0', "timestamp"])
def test_other_words_and_keys_that_stay_are_left(text: str) -> None:
    assert list(places_in(text, "page.md", retired())) == []
