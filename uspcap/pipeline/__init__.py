"""A capture as it runs: frames from a live source to a file and to analyses, and the accounts at the end."""
