"""Fixtures for all tests."""

from namespaces import _namespaces_possible, make_namespace

__all__ = ["_namespaces_possible", "make_namespace"]
