"""What all handles have in common."""

from collections.abc import Callable
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


def collect(errors: list[Exception], close: Callable[[], object]) -> None:
    """Close one thing of several; what it raises waits in `errors` until the others are closed too."""
    try:
        close()
    except Exception as error:
        errors.append(error)
