"""Processes that are activated from outside: by `python -m rtpool run`, or by RTPOOL_ACTIVATE."""
