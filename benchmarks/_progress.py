"""Progress messages: on one changing line in a terminal, elsewhere a line for every step."""

import os
from typing import TextIO


class Progress:
    """Shows progress on a stream."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._in_place = stream.isatty()

    def step(self, text: str) -> None:
        """A new step begins."""
        if self._in_place:
            self._rewrite(text)
        else:
            self.line(text)

    def show(self, text: str) -> None:
        """The current step goes on; shown only in a terminal."""
        if self._in_place:
            self._rewrite(text)

    def line(self, text: str) -> None:
        """A line that remains."""
        self.clear()
        print(text, file=self._stream, flush=True)

    def clear(self) -> None:
        """Remove the progress line."""
        if self._in_place:
            self._rewrite("")
            self._stream.write("\r")
            self._stream.flush()

    def _rewrite(self, text: str) -> None:
        width = self._width() - 1  # a full line would wrap
        self._stream.write("\r" + text[:width].ljust(width))
        self._stream.flush()

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):  # no terminal, or one of unknown width
            return 80
