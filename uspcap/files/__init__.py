"""The files that uspcap writes: where a path leads, who may have put it there, and how a file appears whole."""
