"""Ctrl-C, held back while a process is started: one that nobody holds yet could not be stopped."""

import contextlib
import signal

_held = 0
_pending = False


def _interrupt(_number, _frame):
    global _pending
    if _held:
        _pending = True
    else:
        raise KeyboardInterrupt


def install():
    """Makes SIGINT and SIGTERM raise KeyboardInterrupt, outside of `held`."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


@contextlib.contextmanager
def held():
    """Holds KeyboardInterrupt back until the end of the block."""
    global _held, _pending
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if _pending and not _held:
        _pending = False
        raise KeyboardInterrupt
