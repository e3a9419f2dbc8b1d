"""Counting without running: the tracer, what each op costs, what each output looks like, who holds the memory."""
