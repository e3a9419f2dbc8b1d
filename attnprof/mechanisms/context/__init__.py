"""Mechanisms of the context family: one file each."""
