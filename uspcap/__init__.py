"""uspcap: capture packets past the kernel, stamp every frame, report latency, gaps and bursts."""
