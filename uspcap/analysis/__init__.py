"""One module an analysis; `base` holds the law that all of them obey."""
