"""Header columns, flows, and the rules of feeds and order entry as data."""
