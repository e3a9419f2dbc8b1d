"""What a run must survive: kills, disks that are full, foreign environments, hostile input. `make test-faults` runs all."""
