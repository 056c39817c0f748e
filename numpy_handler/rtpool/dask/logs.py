"""A worker's log without the data in it.

A worker keeps its last 10,000 records (``distributed.admin.log-length``), each with the exception that it tells of, and
the traceback of an exception holds the variables of every function on the way. When a worker is killed while data go
between it and another, those are the data: the other one's record would keep the arrays for as long as it runs.
"""

from __future__ import annotations

import logging

from distributed.utils import DequeHandler

_LOGGER = "distributed.worker"
_FORMATTER = logging.Formatter()


class TextOnly(logging.Filter):
    """Turn what a record refers to into text; what is printed of it stays the same."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, as `logging.Filter` asks."""
        if record.exc_info:
            record.exc_text = record.exc_text or _FORMATTER.formatException(record.exc_info)
            record.exc_info = None
        record.msg, record.args = record.getMessage(), None
        return True

    def install(self) -> None:
        """For the records that this process's workers keep."""
        for handler in logging.getLogger(_LOGGER).handlers:
            if isinstance(handler, DequeHandler):
                handler.addFilter(self)

    def remove(self) -> None:
        """Undo `install`."""
        for handler in logging.getLogger(_LOGGER).handlers:
            handler.removeFilter(self)
