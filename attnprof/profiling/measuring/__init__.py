"""Measuring on a device: latency, allocator peaks, energy, and what the machine was doing meanwhile."""
