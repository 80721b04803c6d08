"""Ctrl-C at every place where Python looks for signals: as a function begins, after a call of C, as a loop goes on."""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pylog

# The instructions after which the interpreter runs signal handlers, if the call was not one of a function in Python.
LOOKS_AFTER = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "JUMP_BACKWARD"}
PACKAGE = str(Path(pylog.__file__).parent)


class Interrupt:
    """Raises KeyboardInterrupt at one place of those that a call of `function` comes by, counted from 0.

    Only this thread is interrupted, as only the main thread is by a signal.  `function`'s own frame is not, nor are
    those of Python's own library: an interrupted Thread.start leaves a thread that cannot be told from one that is not.
    From finalizers Python takes the interrupt away, with an "Exception ignored".
    """

    def __init__(self, place: int) -> None:
        self._left = place
        self._looks: FrameType | None = None  # that of the last instruction, if it is one of those
        self.where = ""

    def call(self, function: Callable[[], object]) -> bool:
        """Whether the interrupt came; False: the function has fewer places than that."""
        here = sys._getframe()
        before = sys.gettrace()
        gc.disable()  # what an earlier test has left has no part in this
        sys.settrace(lambda frame, event, of: None if frame.f_back is here else self._trace(frame, event, of))
        try:
            function()
        except KeyboardInterrupt:
            if not self.where:
                raise
        finally:
            sys.settrace(before)
            gc.enable()
        return bool(self.where)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            self._looks = None
        elif event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            self._looks = None
            self._look(frame)
        elif event == "opcode":
            if self._looks is frame:
                self._look(frame)
            before, name = (dis.opname[frame.f_code.co_code[at]] for at in (max(0, frame.f_lasti - 2), frame.f_lasti))
            # That of a `with` is no such place, but in those of Python 3.14 in which gh-148874 is not mended.
            self._looks = frame if name in LOOKS_AFTER and before != "LOAD_SPECIAL" else None
        else:
            self._looks = None
        return self._trace

    def _look(self, frame: FrameType) -> None:
        if self.where:
            return
        if self._left == 0:
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"
            raise KeyboardInterrupt
        self._left -= 1
