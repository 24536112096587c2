"""Test traffic: stamped, numbered probes on a schedule, and what answers them."""
