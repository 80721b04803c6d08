"""What all handles have in common."""

from types import TracebackType
from typing import Self


class Closing:
    """`with` closes the handle at its end."""

    def close(self) -> None:
        """Give back what the handle holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
