"""Temporal attention: which frames matter, and how features of frames are brought together."""
