"""Test traffic: timestamped, numbered probes on a schedule, and what answers them."""
