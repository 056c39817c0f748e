"""Pictures: formats that browsers and other programs read, from plain values. What they show comes from `_trace`."""
