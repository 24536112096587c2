"""Renderers of reports, one file each, and the registry of them."""
