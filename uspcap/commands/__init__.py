"""One module a command: arguments in, calls down, a report out."""
