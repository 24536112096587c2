"""One module a sample: a table of what happens, and a function that plays it and returns file and truth."""
