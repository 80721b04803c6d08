"""pylog._objects.ByteLock and OneThread: what `with` takes is given back, whatever leaves the block."""

import fcntl
import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pylog._locks import LockFile, byte_lock
from pylog._objects import ByteLock, OneThread

UNLOCK = fcntl.fcntl, fcntl.F_OFD_SETLK, b"\0" * 32


class Counted(LockFile):
    """A lock file that counts what a ByteLock calls."""

    def __init__(self, path: Path, *, reentrant: bool = False, waits: bool = True) -> None:
        super().__init__(path)
        self.begun = self.ended = 0
        self.fails: Exception | None = None
        threads = threading.RLock() if reentrant else threading.Lock()
        self.section = byte_lock(threads, self, 0, self._begin, self._end, waits=waits)

    def _begin(self) -> bool:
        taken = self.try_lock(0)
        self.begun += 1
        if self.fails is not None:
            raise self.fails
        return taken

    def _end(self) -> None:
        self.ended += 1
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def other(tmp_path: Path) -> LockFile:
    return LockFile(tmp_path / "lock")


def in_a_thread(function: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    return results[0]


def test_a_byte_lock_is_held_in_the_block_and_free_behind_it(tmp_path: Path, other: LockFile) -> None:
    mine = Counted(tmp_path / "lock")
    for _ in range(2):
        with mine.section as taken:
            assert taken is True
            assert other.is_held(0)
            assert mine.section.depth == 1
        assert not other.is_held(0)
    assert (mine.begun, mine.ended, mine.section.depth) == (2, 2, 0)


def test_an_exception_passes_through_and_gives_the_lock_back_without_an_end(tmp_path: Path, other: LockFile) -> None:
    mine = Counted(tmp_path / "lock")
    with pytest.raises(KeyError, match="mine"), mine.section:
        raise KeyError("mine")
    assert mine.ended == 0
    assert not other.is_held(0)
    with mine.section:
        pass


def test_a_failed_begin_or_end_gives_the_lock_back(tmp_path: Path, other: LockFile) -> None:
    mine = Counted(tmp_path / "lock")
    mine.fails = KeyError("at once")
    with pytest.raises(KeyError, match="at once"), mine.section:
        raise AssertionError
    assert not other.is_held(0)
    mine.fails = None
    with pytest.raises(KeyError, match="later"), mine.section:
        mine.fails = KeyError("later")
    assert not other.is_held(0)
    mine.fails = None
    with mine.section:
        assert other.is_held(0)


def test_a_reentrant_one_does_it_all_in_its_outermost_block(tmp_path: Path, other: LockFile) -> None:
    mine = Counted(tmp_path / "lock", reentrant=True)
    with mine.section:
        with mine.section as inner:
            assert inner is None
            assert mine.section.depth == 2
        assert other.is_held(0)
        assert (mine.begun, mine.ended) == (1, 0)
    assert not other.is_held(0)
    assert (mine.begun, mine.ended) == (1, 1)


def test_who_does_not_wait_is_told_that_it_is_not_free(tmp_path: Path, other: LockFile) -> None:
    mine = Counted(tmp_path / "lock", waits=False)

    def enter() -> bool:
        with mine.section as taken:
            return taken

    assert other.try_lock(0)
    assert enter() is False
    other.unlock(0)
    assert (mine.begun, mine.ended) == (1, 0)
    with mine.section as taken:
        assert taken is True
        assert in_a_thread(enter) is False
        assert other.is_held(0)  # the other thread has given nothing back
    assert not other.is_held(0)
    assert in_a_thread(enter) is True


def test_who_is_refused_inside_another_section_leaves_that_its_lock(tmp_path: Path, other: LockFile) -> None:
    mine = Counted(tmp_path / "lock")
    threads = threading.RLock()
    outer = byte_lock(threads, mine, 0, lambda: mine.try_lock(0))
    inner = byte_lock(threads, mine, 0, lambda: outer.depth == 0, waits=False)
    with outer:
        with inner as taken:
            assert taken is False
        assert other.is_held(0)
    assert not other.is_held(0)


def test_threads_keep_each_other_out(tmp_path: Path) -> None:
    mine = Counted(tmp_path / "lock")
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(300):
            with mine.section:
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert mine.begun == mine.ended == 1200


def test_a_file_that_was_closed_in_the_block_has_no_lock_to_give_back(tmp_path: Path, other: LockFile) -> None:
    mine = Counted(tmp_path / "lock")
    with mine.section:
        mine.close()
    assert not other.is_held(0)


def test_an_unlock_that_fails_is_told() -> None:
    class Opened:
        fd = 1 << 20

    lock = ByteLock(threading.Lock(), Opened(), UNLOCK, lambda: None)
    with pytest.raises(OSError, match="Bad file descriptor"), lock:
        pass
    with pytest.raises(OSError, match="Bad file descriptor") as raised, lock:
        raise KeyError
    assert isinstance(raised.value.__context__, KeyError)
    assert lock.depth == 0


def test_in_a_forked_child_nothing_is_taken(tmp_path: Path, in_child: Any) -> None:
    mine = Counted(tmp_path / "lock")

    def enter() -> None:
        with mine.section:
            pass

    with mine.section:  # in the child it would be waited for
        assert in_child(enter)[0] in ("RuntimeError", "OSError", "ValueError")
    mine.close()


def test_arguments_are_checked(tmp_path: Path) -> None:
    mine = Counted(tmp_path / "lock")
    with pytest.raises(ValueError, match="unlock must have 3 items, not 1"):
        ByteLock(threading.Lock(), mine, (print,), lambda: None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ByteLock(threading.Lock(), mine, None, lambda: None)  # type: ignore[arg-type]
    no_lock: Any = None
    with pytest.raises(AttributeError, match="acquire"), ByteLock(no_lock, mine, UNLOCK, lambda: None):
        pass


def test_a_cycle_through_a_section_is_collected(tmp_path: Path) -> None:
    mine = Counted(tmp_path / "lock")
    gone = weakref.ref(mine)
    del mine
    gc.collect()
    assert gone() is None

    class User:
        def __init__(self) -> None:
            self.alone = OneThread(self.check, refuse)

        def check(self) -> None:
            pass

    user = User()
    gone_user = weakref.ref(user)
    del user
    gc.collect()
    assert gone_user() is None


def refuse() -> NoReturn:
    raise PermissionError("another thread")


def test_one_thread_may_enter_again_and_others_are_refused() -> None:
    checks: list[int] = []
    alone = OneThread(lambda: checks.append(1), refuse)

    def enter() -> str:
        try:
            with alone:
                return "in"
        except PermissionError as error:
            return str(error)

    with alone:
        assert enter() == "in"
        assert alone.depth == 1
        assert in_a_thread(enter) == "another thread"
    assert alone.depth == 0
    assert in_a_thread(enter) == "in"
    assert len(checks) == 3


def test_a_failed_check_lets_go() -> None:
    def check() -> None:
        raise KeyError("closed")

    alone = OneThread(check, refuse)
    with pytest.raises(KeyError, match="closed"), alone:
        raise AssertionError
    assert alone.depth == 0
