"""Workers whose handler runs in other processes."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import pylog

HEAD = """
import os, signal, sys, time
import pylog

def send(log, *values):
    with log.producer() as producer:
        for value in values:
            producer.send("orders", value.encode(), value[:1].encode())

def tell(*words):
    with open("told", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def told():
    try:
        with open("told") as file:
            return file.read().split("\\n")[:-1]
    except FileNotFoundError:
        return []

def until(holds):
    deadline = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.01)
"""

Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program from a file, for the processes it starts import it again."""

    def run(source: str) -> "subprocess.CompletedProcess[str]":
        path = tmp_path / "program.py"
        path.write_text(HEAD + textwrap.dedent(source))
        return subprocess.run(
            [sys.executable, "-W", "error", str(path)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return run


def test_records_are_handled_in_other_processes_in_key_order(run: Run) -> None:
    done = run("""
        def handle(record):
            tell(os.getpid(), record.key, record.value)

        if __name__ == "__main__":
            with pylog.open("data") as log:
                send(log, *[f"{key}{n}" for n in range(50) for key in "abc"])
                with log.workers(
                    handle, "orders", group_id="crew", processes=True, workers=3,
                    key_deserializer="str", value_deserializer="str",
                ) as workers:
                    workers.start()
                    until(lambda: len(told()) == 150)
                lines = [line.split() for line in told()]
                for key in "abc":
                    assert [value for _, of, value in lines if of == key] == [f"{key}{n}" for n in range(50)]
                assert str(os.getpid()) not in {pid for pid, _, _ in lines}
                consumer = log.consumer(group_id="crew")
                assert consumer.committed(pylog.TopicPartition("orders", 0)) == 150
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_killed_process_is_one_failure_of_its_record_and_a_new_one_goes_on(run: Run) -> None:
    done = run("""
        def handle(record):
            tell(record.value.decode(), os.getpid())
            if record.value == b"a0" and len([line for line in told() if line.startswith("a0 ")]) < 3:
                os.kill(os.getpid(), signal.SIGKILL)
            if record.value == b"b1":
                os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            with pylog.open("data") as log:
                send(log, "a0", "a1", "b0", "b1", "b2")
                with log.workers(
                    handle, "orders", group_id="crew", processes=True, retries=2, retry_delay=0.01
                ) as workers:
                    workers.start()
                    until(lambda: {"a1", "b2"} <= {line.split()[0] for line in told()})
                names = [line.split()[0] for line in told()]
                assert [name for name in names if name[0] == "a"] == ["a0"] * 3 + ["a1"], names
                assert [name for name in names if name[0] == "b"] == ["b0"] + ["b1"] * 3 + ["b2"], names
                (dead,) = log.read("dlq.crew.orders")
                assert dead.value == b"b1"
                assert b"WorkerDiedError" in dict(dead.headers)["__dlq.errors.message"]
                assert b"exit code -9" in dict(dead.headers)["__dlq.errors.message"]
    """)
    assert done.returncode == 0, done.stderr


def test_an_error_comes_back_as_it_was_with_where_it_happened(run: Run) -> None:
    done = run("""
        class Odd(Exception):
            def __init__(self, one, two):
                super().__init__(one + two)

        def handle(record):
            if record.value == b"a0":
                raise KeyError("deep inside")
            if record.value == b"b0":
                raise Odd("does not ", "pickle")
            raise SystemExit(3)

        if __name__ == "__main__":
            with pylog.open("data") as log:
                send(log, "a0", "b0", "c0")
                for key in "abc":
                    with log.workers(
                        handle, "orders", group_id="crew", processes=True, workers=1, retries=0, on_error="stop"
                    ) as workers:
                        try:
                            workers.run()
                        except Exception as error:
                            print(repr(error), "in handle" in error.__notes__[0])
                    with log.consumer(group_id="crew", enable_auto_commit=False) as consumer:
                        consumer.assign([pylog.TopicPartition("orders", 0)])
                        at = consumer.committed(pylog.TopicPartition("orders", 0)) or 0
                        consumer.commit({pylog.TopicPartition("orders", 0): pylog.OffsetAndMetadata(at + 1)})
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "KeyError('deep inside') True",
        "RuntimeError('Odd: does not pickle') True",
        "RuntimeError('SystemExit: 3') True",
    ]


def test_processes_do_not_outlive_a_parent_that_is_killed(run: Run, tmp_path: Path) -> None:
    done = run("""
        def handle(record):
            tell(os.getpid())

        if __name__ == "__main__":
            log = pylog.open("data")
            send(log, "a0", "b0", "c0", "d0")
            log.workers(handle, "orders", group_id="crew", processes=True).start()
            until(lambda: len(told()) == 4)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert done.returncode == -9, done.stderr
    # It has ended, for its pipes have: run() waits for all that hold them.
    pids = {int(line) for line in (tmp_path / "told").read_text().split()}
    assert pids
    assert not [
        pid
        for pid in pids
        if Path(f"/proc/{pid}/cmdline").exists() and b"program" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_a_program_that_ends_without_closing_drains(run: Run) -> None:
    done = run("""
        def handle(record):
            tell(record.value.decode())

        if __name__ == "__main__":
            log = pylog.open("data")
            send(log, *[f"a{n}" for n in range(100)])
            log.workers(handle, "orders", group_id="crew", processes=True, retries=0).start()
            until(lambda: told())
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_reaches_the_parent_alone(run: Run) -> None:
    done = run("""
        def handle(record):
            tell(record.value.decode())
            if record.value == b"a0":
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getppid(), signal.SIGINT)
                time.sleep(0.2)

        if __name__ == "__main__":
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with pylog.open("data") as log:
                send(log, "a0", "a1", "a2")
                try:
                    log.workers(handle, "orders", group_id="crew", processes=True, retries=0).run()
                except KeyboardInterrupt:
                    print("interrupted", *told())
    """)
    assert (done.returncode, done.stdout) == (0, "interrupted a0 a1 a2\n"), done.stderr


def test_a_main_module_without_guard_is_told(run: Run) -> None:
    done = run("""
        def handle(record):
            pass

        log = pylog.open("data")
        send(log, "a0")
        workers = log.workers(handle, "orders", group_id="crew", processes=True)
        try:
            workers.start()
        except pylog.InvalidConfigurationError as error:
            print(error)
    """)
    assert done.returncode == 0
    assert '`if __name__ == "__main__":`' in done.stdout


def test_what_does_not_pickle_is_refused_at_once(log: pylog.Log) -> None:
    with pytest.raises(pylog.InvalidConfigurationError, match="must pickle"):
        log.workers(lambda _: None, "orders", group_id="crew", processes=True)


def test_processes_need_a_handler(log: pylog.Log) -> None:
    with pytest.raises(pylog.InvalidConfigurationError, match="handler"):
        log.workers(None, "orders", group_id="crew", processes=True)
