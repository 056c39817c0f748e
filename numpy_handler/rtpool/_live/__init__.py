"""Running processes: what those with ``RTPOOL_LIVE=1`` show of themselves, and reading it."""
