"""Pools: what they are, what is in force, statistics, plans, debug reports, the default pool."""
