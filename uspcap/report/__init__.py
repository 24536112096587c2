"""Renderers: terminal, JSON, tables."""
