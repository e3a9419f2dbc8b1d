"""Mechanisms of the channel and spatial family: one file each."""
