"""Traces: what a program asked of its pools, recorded, and what can be learned from it."""
