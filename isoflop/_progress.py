"""A progress line on stderr for anything over two seconds, where a person is watching."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Tick(Protocol):
    def __call__(self, done: int, /) -> None: ...


@contextmanager
def progress(what: str, total: int) -> Iterator[Tick]:
    """Yield a function to call with how many more are done. Silent for the first two seconds and where nobody looks."""
    began, shown, count = time.monotonic(), 0.0, 0
    lock = threading.Lock()
    watched = sys.stderr.isatty()

    def tick(done: int) -> None:
        nonlocal shown, count
        with lock:
            count += done
            now = time.monotonic()
            if watched and now - began > 2.0 and now - shown > 0.2:
                shown = now
                left = (now - began) * (total - count) / max(count, 1)
                sys.stderr.write(f"\r{what}: {count} of {total}, {left:.0f} s left \x1b[K")
                sys.stderr.flush()

    try:
        yield tick
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
