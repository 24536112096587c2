"""Fixtures for all tests."""

from tests.namespaces import _namespaces_possible, make_namespace

__all__ = ["_namespaces_possible", "make_namespace"]
