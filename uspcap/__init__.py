"""uspcap: capture packets past the kernel, stamp every frame, report latency, gaps and bursts."""

__version__ = "0.1.0"
