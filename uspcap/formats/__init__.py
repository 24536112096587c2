"""Capture files: readers and writers of pcap and pcapng, and what compresses them."""
