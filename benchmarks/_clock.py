"""Time as it passes, and an alarm."""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter


class Clock:
    """The machine's."""

    def now(self) -> float:
        """Seconds since whenever."""
        return perf_counter()

    @contextmanager
    def alarm(self, seconds: float, ring: Callable[[], None]) -> Iterator[None]:
        """Have `ring` called if the block still goes on after so many seconds; it may raise.

        Only in the main thread, and where there are such signals; elsewhere it never rings.
        """
        able = hasattr(signal, "setitimer")
        if seconds == math.inf or not able or threading.current_thread() != threading.main_thread():
            yield
            return
        handler = signal.signal(signal.SIGALRM, lambda *_: ring())
        timer = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))  # 0 would be never
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, handler)
