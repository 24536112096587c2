"""Where frames go: capture files, one after the other, written past a thread of their own, and what is run on each."""
