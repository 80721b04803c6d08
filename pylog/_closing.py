"""What all handles have in common."""

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from ._errors import PylogError


class Handle(Protocol):
    """What a Log closes when it is closed, and gives up in a forked child."""

    def close(self) -> None:
        """As the user may do it himself, before."""

    def mark_forked(self, error: type[PylogError]) -> None:
        """In a forked child: every use raises `error`."""


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
        try:
            self.close()
        except PylogError as failure:
            if error is None or isinstance(error, Exception):
                raise
            error.add_note(f"{type(self).__name__}.close: {failure!r}")  # Ctrl-C stays Ctrl-C


def collect(errors: list[Exception], close: Callable[[], object]) -> None:
    """Close one thing of several; what it raises waits in `errors` until the others are closed too."""
    try:
        close()
    except Exception as error:
        errors.append(error)
