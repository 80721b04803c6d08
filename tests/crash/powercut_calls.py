"""Cuts before each call that changes the disk: of a recovery, and of a script of changes.  The shim cuts."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator

from powercut_child import Teller, open_log
from powercut_fork import fork
from powercut_model import MESSAGE, Kind, LossError, Message, Model
from powercut_rig import Rig, live
from powercut_shim import Shim

Body = Callable[[Model, Teller, int], None]


def cut_recovery(rig: Rig, shim: Shim) -> Iterator[None]:
    """Recoveries of a directory that a cut has left, each cut at another of its calls: all find the same records."""
    rig.new_directory()
    for _ in range(rig.rng.randint(2, 6)):
        rig.cut_once()
        yield
    plan = rig.plan(0)

    def recover(_model: Model, _teller: Teller, _answer: int) -> None:
        open_log(plan)  # not closed: that is not recovery's

    expected: list[object] = []

    def compare() -> None:
        found = [(place, p.base, p.settled) for place, p in sorted(rig.model.partitions.items())]
        expected.append(found)
        if found != expected[0]:
            raise LossError(f"recovered after an interrupted recovery: {found}, without an interruption: {expected[0]}")

    yield from _cut_each(rig, shim, recover, compare)


def cut_calls(rig: Rig, shim: Shim) -> Iterator[None]:
    """One script of changes, cut before each of its calls."""
    rig.new_directory()
    if rig.rng.random() < 0.5:
        rig.cut_once()
        yield
    plan = rig.plan(rig.rng.randint(4, 24))
    yield from _cut_each(rig, shim, lambda model, teller, answer: live(plan, model, teller, answer), lambda: None)


def _cut_each(rig: Rig, shim: Shim, body: Body, check: Callable[[], None]) -> Iterator[None]:
    saved, model = rig.disk.save(), copy.deepcopy(rig.model)
    model.acknowledged_count = 0
    try:
        _run(rig, shim, body, cut_at=0)
        rig.verify()
        check()
        calls = list(range(1, shim.get("calls") + 1))
        rig.rng.shuffle(calls)  # so that a run with few cuts sees all parts of it
        for call in calls:
            rig.note_model()
            rig.model = copy.deepcopy(model)
            rig.disk.restore(saved)
            if _run(rig, shim, body, cut_at=call):
                rig.cuts += 1
                rig.calls_cut += 1
            rig.verify()
            check()
            yield
    finally:
        os.close(saved)


def _run(rig: Rig, shim: Shim, body: Body, *, cut_at: int) -> bool:
    """Whether the power went."""
    rig.disk.mount()
    model = rig.model

    def armed(teller: Teller, answer: int) -> None:
        shim.set_marker(MESSAGE.pack(*Message(Kind.CUT)))
        shim.set(calls=0, cut_at=cut_at, how=rig.how(), mount_fd=rig.disk.mount_fd, marker_fd=teller.fd, armed=1)
        try:
            body(model, teller, answer)
        finally:
            shim.set(armed=0)

    child = fork(armed)
    status, cut = rig.follow(child)
    shim.set(armed=0)
    rig.disk.unmount()
    if not cut and status != 0:  # without power, a thread may fail before the shim has killed the process
        rig.raise_end(child, status)
    return cut
