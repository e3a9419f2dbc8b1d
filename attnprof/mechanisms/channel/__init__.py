"""Mechanisms of the channel family: one file each."""
