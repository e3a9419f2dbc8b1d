"""Spatial and temporal attention: where to look and when."""
