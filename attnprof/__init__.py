"""attnprof: what attention costs, counted without running it."""
