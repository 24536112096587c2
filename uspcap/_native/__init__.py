"""Compiled code: what runs once a frame."""
