"""Copies of large arrays."""
