"""A bar on stderr, where that is a terminal: bytes done of all, the rate, the time that is left."""

import shutil
import sys
import threading
import time
from types import TracebackType
from typing import Self

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Progress:
    """Counts bytes from any thread; in a `with` statement, and only on a terminal, it draws."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True) if sys.stderr.isatty() else None
        self.stopped = False

    def passed(self, count: int) -> None:
        """Count bytes; raises KeyboardInterrupt once the work is to stop."""
        if self.stopped:
            raise KeyboardInterrupt
        with self._lock:
            self._done += count

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped = kind is not None
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _draw(self) -> None:
        while not self._over.wait(0.1):
            sys.stderr.write("\r\x1b[K" + self.line(time.monotonic() - self._begun, shutil.get_terminal_size().columns))
            sys.stderr.flush()

    def line(self, seconds: float, columns: int) -> str:
        """The bar as it is after `seconds`."""
        share = min(1.0, self._done / self._total) if self._total else 1.0
        left = max(0, self._total - self._done) * seconds / self._done if self._done else 0.0
        words = (
            f" {share:4.0%}  {size_text(self._done)} of {size_text(self._total)}"
            f"  {size_text(self._done / max(seconds, 1e-9))}/s  {int(left) // 60}:{int(left) % 60:02d} left"
        )
        width = max(0, min(30, columns - len(words) - 1))
        filled = int(share * width)
        return ("█" * filled + "░" * (width - filled) + words)[: columns - 1]


def size_text(size: float) -> str:
    """A number of bytes in three digits or so."""
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if unit == 0 or size >= 100 else f"{size:.1f} {UNITS[unit]}"
