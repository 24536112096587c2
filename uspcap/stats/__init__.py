"""Statistics that analyses, comparisons and reports share."""
