"""Counting and measuring: traces on tensors without data, memory ledgers, timing on a device."""
