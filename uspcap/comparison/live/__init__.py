"""Which path from the NIC to an application costs what: the same traffic, in the same seconds, on one host.

`LiveComparison` in `experiment` is the one thing to call; `uspcap.report.live_comparison` makes its report.
"""
