"""What a run must survive: each fault is a test that can be found by name."""
