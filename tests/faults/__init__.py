"""What a run must survive, a test for each fault."""
