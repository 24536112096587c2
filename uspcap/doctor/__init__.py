"""What a host and its NICs can do for a capture, and what costs them latency.

Findings are made by small functions, one for each thing that is looked at, in `host_checks` and `nic_checks`; they read
through `HostFiles` and `Driver` only, so that each can be tried on a machine that is made up. What a finding proposes
to change is data (`changes`), which can be carried out and taken back.
"""
