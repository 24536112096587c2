"""Classic BPF filters and eBPF programs."""
