"""Who has a directory open: what openers and leavers hold, and what a failed one leaves."""

import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest

import pylog
from pylog._locks import LockFile
from pylog._membership import GATE, LOCK_NAME, MEMBERSHIP, Membership


def test_who_opens_while_another_open_fails_finds_no_lock_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pylog.open(tmp_path) as log:
        log.producer().send("orders", b"0").get()
    (tmp_path / ".kafka_cleanshutdown").unlink()  # as a kill leaves it: who is alone recovers
    failing, give_up = threading.Event(), pylog.Log._give_up
    seen: list[bool] = []

    def fail(self: pylog.Log, *, alone: bool) -> NoReturn:
        raise KeyError("in mid-recovery")

    def give_up_slowly(self: pylog.Log) -> None:
        failing.set()
        time.sleep(0.2)
        give_up(self)

    def open_other() -> None:
        failing.wait(10)
        monkeypatch.undo()
        membership = Membership(tmp_path)
        with membership.joining as alone:
            seen.append(alone)
        membership.abandon()

    monkeypatch.setattr(pylog.Log, "_load", fail)
    monkeypatch.setattr(pylog.Log, "_give_up", give_up_slowly)
    other = threading.Thread(target=open_other)
    other.start()
    with pytest.raises(KeyError, match="in mid-recovery"):
        pylog.open(tmp_path)
    other.join()
    assert seen == [True]  # it joined nobody: it recovers


def test_who_has_joined_keeps_its_membership_and_leaves_the_gate(tmp_path: Path) -> None:
    onlooker, first, second = LockFile(tmp_path / LOCK_NAME), Membership(tmp_path), Membership(tmp_path)
    with first.joining as alone:
        assert alone
        assert onlooker.is_held(GATE)
    with second.joining as alone:
        assert not alone
    assert not onlooker.is_held(GATE)
    assert onlooker.is_held(MEMBERSHIP)
    with first.leaving as last:
        assert not last
    with second.leaving as last:
        assert last
        assert onlooker.is_held(GATE)
    assert not onlooker.is_held(GATE)
    assert not onlooker.is_held(MEMBERSHIP)
    first.abandon()
    second.abandon()
