"""Comparison of two captures of the same traffic, and of two paths on one host."""
