"""Mechanisms of the spatial family: one file each."""
