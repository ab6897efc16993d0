"""Telling how far something is: in a terminal in one line, elsewhere in a line for every step."""

import os
from typing import TextIO


class Progress:
    """What is under way, told on a stream."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._in_place = stream.isatty()

    def step(self, text: str) -> None:
        """Something begins."""
        if self._in_place:
            self._rewrite(text)
        else:
            self.line(text)

    def show(self, text: str) -> None:
        """It goes on: only a terminal is told."""
        if self._in_place:
            self._rewrite(text)

    def line(self, text: str) -> None:
        """Something to remain."""
        self.clear()
        print(text, file=self._stream, flush=True)

    def clear(self) -> None:
        """Nothing is under way."""
        if self._in_place:
            self._rewrite("")
            self._stream.write("\r")
            self._stream.flush()

    def _rewrite(self, text: str) -> None:
        width = self._width() - 1  # a full line would be the first of two
        self._stream.write("\r" + text[:width].ljust(width))
        self._stream.flush()

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):  # no terminal after all, or one that does not tell
            return 80
