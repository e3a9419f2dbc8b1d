"""What a run must survive: `make test-faults` runs all of it, `make test` all but the longest."""
