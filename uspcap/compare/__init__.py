"""Comparing two captures of the same traffic, frame by frame."""
