"""A clock with an alarm."""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter


class Clock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since an arbitrary moment."""
        return perf_counter()

    @contextmanager
    def alarm(self, seconds: float, ring: Callable[[], None]) -> Iterator[None]:
        """Call `ring`, which may raise, if the block still runs after so many seconds.

        Works only in the main thread and on systems with timer signals; elsewhere it never rings.
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
