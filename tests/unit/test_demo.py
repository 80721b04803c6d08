"""`pylog demo`: what it says is true, it harms nothing, and it finds what it looks for."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pylog
from pylog import _demo, cli
from pylog._demo import sources, tour
from pylog._demo.report import columns_of, shown

POEM = (
    b"Oh freddled gruntbuggly,\nthy micturations are to me\n\n\ta long \xff line"
    + b" of blurts" * 20
    + b"\r\nno newline"
)
LINES = POEM.split(b"\n")


@pytest.fixture(autouse=True)
def in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    path = tmp_path / "poem.txt"
    path.write_bytes(POEM)
    return path


def tree(directory: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def test_without_arguments_it_shows_all_on_text_that_the_machine_has(
    in_empty_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [line[:2] for line in printed.out.splitlines() if re.match(r"\d\.", line)] == [f"{n}." for n in range(1, 8)]
    assert "All is well" in printed.out
    assert [path.name for path in in_empty_directory.iterdir()] == ["pylog-data"]
    expected = sum(len(path.read_bytes().splitlines()) for path in sources.default_paths())
    with pylog.open("pylog-data", read_only=True) as log:
        assert sum(1 for _ in log.read("lines")) == expected
    assert f"{expected:,} records" in printed.out


def test_where_there_are_no_licenses_it_takes_pythons_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "LICENSES", tmp_path / "none")
    paths = sources.default_paths()
    assert 1 < len(paths) <= sources.STANDARD_LIBRARY_FILES_MAX
    assert _demo.main([]) == 0
    assert paths[0].name in capsys.readouterr().out


def test_records_are_the_lines_in_order_a_second_apart_under_the_name_of_their_file(poem: Path) -> None:
    before_ms = time.time() * 1000
    assert _demo.main(["--data", "new", str(poem)]) == 0
    with pylog.open("new", read_only=True) as log:
        records = list(log.read("lines"))
    assert [record.value for record in records] == LINES
    assert {record.key for record in records} == {b"poem.txt"}
    stamps = [record.timestamp for record in records]
    assert [later - earlier for earlier, later in pairwise(stamps)] == [1000] * (len(LINES) - 1)
    assert before_ms - 1 <= stamps[-1] <= time.time() * 1000


def test_files_of_one_name_in_two_places_stay_apart(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "same")
        paths[-1].write_bytes(name.encode() * 3 + b"\n")
    assert _demo.main(["--data", "new", *map(str, paths)]) == 0
    with pylog.open("new", read_only=True) as log:
        found = {record.key: record.value for record in log.read("lines")}
    assert found == {os.fsencode(paths[0]): b"aaa", os.fsencode(paths[1]): b"bbb"}


def test_a_second_run_leaves_the_first_one_as_it_is(in_empty_directory: Path, poem: Path) -> None:
    assert _demo.main([str(poem)]) == 0
    first = tree(in_empty_directory / "pylog-data")
    assert _demo.main([str(poem)]) == 0
    assert tree(in_empty_directory / "pylog-data") == first
    assert (in_empty_directory / "pylog-data-2" / "lines-0").is_dir()


def test_a_directory_with_something_in_it_is_refused_and_not_touched(
    tmp_path: Path, poem: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("precious")
    before = tree(tmp_path)
    assert _demo.main(["--data", str(taken), str(poem)]) == 2
    assert str(taken) in capsys.readouterr().err
    assert _demo.main(["--data", str(poem), str(poem)]) == 2
    assert f"{poem}: is a file" in capsys.readouterr().err
    assert tree(tmp_path) == before


def bad_input(kind: str, directory: Path) -> Path:
    path = directory / "bad"
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "empty":
            path.touch()
        case "binary":
            path.write_bytes(b"fine\n" * 50_000 + b"not\0fine\n")
        case "long line":
            path.write_bytes(b"short\n" + b"x" * (sources.LINE_BYTES_MAX + 1) + b"\n")
        case "unreadable":
            # Readable to nobody, root included: there is nothing at address 0.
            return Path("/proc/self/mem")
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "No such file"),
        ("directory", "is a directory"),
        ("pipe", "no regular file"),
        ("empty", "is empty"),
        ("binary", "line 50001 holds a zero byte"),
        ("long line", "line 2 is longer"),
        ("unreadable", "error"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_nothing_is_written(
    kind: str, says: str, tmp_path: Path, in_empty_directory: Path, poem: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bad_input(kind, tmp_path)
    assert _demo.main([str(poem), str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"pylog demo: {path}: ")
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert list(in_empty_directory.iterdir()) == []


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert _demo.main(["--colour"]) == 2
    assert "--colour" in capsys.readouterr().err


def test_the_longest_line_that_is_let_in_fits_into_a_record(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"y" * sources.LINE_BYTES_MAX)
    assert _demo.main(["--data", "new", str(path)]) == 0


def test_a_single_blank_line_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "blank"
    path.write_bytes(b"\n")
    assert _demo.main(["--data", "new", str(path)]) == 0


def test_lines_of_text_stay_in_80_columns_without_control_characters(
    poem: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poem.write_bytes(POEM + b"\n\x1b[31mred\x1b[0m\x07\n" + "\u65e5\u672c\u8a9e".encode() * 40)
    assert _demo.main([str(poem)]) == 0
    out = capsys.readouterr().out
    assert all(character == "\n" or character.isprintable() for character in out)
    # Commands must be copied whole, and paths are as long as they are.
    long_for_a_reason = re.compile(f" -m pylog |pylog-data|{re.escape(str(poem))}")
    assert [line for line in out.splitlines() if columns_of(line) > 80 and not long_for_a_reason.search(line)] == []


@given(st.binary(max_size=300), st.integers(4, 90))
def test_whatever_the_bytes_they_are_shown_in_the_columns_there_are(data: bytes, columns: int) -> None:
    text = shown(data, columns)
    assert columns_of(text) <= columns
    assert all(character.isprintable() for character in text)


@given(st.lists(st.binary(max_size=40).filter(lambda part: b"\0" not in part)), st.integers(1, 50))
def test_lines_are_the_same_wherever_the_reading_stops_between(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], chunk_bytes: int
) -> None:
    data = b"\n".join(parts) or b"x"
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(data)
    (source,) = sources.look_over([path])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CHUNK_BYTES", chunk_bytes)
        lines = [line for some in sources.read_lines(source) for line in some]
    assert lines == data.removesuffix(b"\n").split(b"\n")


def test_what_is_appended_meanwhile_is_left_out_and_what_is_cut_off_is_noticed(poem: Path) -> None:
    (source,) = sources.look_over([poem])
    with poem.open("ab") as file:
        file.write(b" and more\nand more\n")
    assert [line for some in sources.read_lines(source) for line in some] == LINES
    poem.write_bytes(POEM[:-3])
    with pytest.raises(sources.InputError, match="has changed"):
        list(sources.read_lines(source))


def drop_one(records: list[pylog.Record]) -> list[pylog.Record]:
    return records[:-1]


def swap_two(records: list[pylog.Record]) -> list[pylog.Record]:
    return [records[1], records[0], *records[2:]]


@pytest.mark.parametrize("harm", [drop_one, swap_two])
def test_records_that_do_not_come_back_as_they_went_in_are_a_failure(
    harm: Callable[[list[pylog.Record]], list[pylog.Record]],
    poem: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poll = pylog.Consumer.poll

    def harmed(consumer: pylog.Consumer, timeout_ms: float = 0) -> dict[pylog.TopicPartition, list[pylog.Record]]:
        return {tp: harm(records) for tp, records in poll(consumer, timeout_ms).items()}

    monkeypatch.setattr(pylog.Consumer, "poll", harmed)
    assert _demo.main([str(poem)]) == 1
    printed = capsys.readouterr()
    assert "CHECK FAILED: consuming everything" in printed.err
    assert "All is well" not in printed.out


def test_a_bit_that_flips_on_the_disk_is_a_failure_with_its_place(
    poem: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reopen = tour.Tour.reopen

    def flip_and_reopen(self: tour.Tour) -> None:
        content = bytearray(self.segment.read_bytes())
        content[-5] ^= 1
        self.segment.write_bytes(content)
        reopen(self)

    monkeypatch.setattr(tour.Tour, "reopen", flip_and_reopen)
    assert _demo.main([str(poem)]) == 1
    assert re.search(r"CorruptRecordError: lines-\d/0{20}\.log: batch at 0", capsys.readouterr().err)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    root = Path(pylog.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False
    )


def run_shell(line: str) -> subprocess.CompletedProcess[str]:
    return run("bash", "-o", "pipefail", "-c", line)


def test_what_it_recommends_works_as_printed(poem: Path) -> None:
    printed = run(sys.executable, "-m", "pylog", "demo", "--data", "it's new", str(poem))
    assert printed.returncode == 0, printed.stderr
    advice = printed.stdout.partition("What to try next")[2]
    commands = [line.strip() for line in advice.splitlines() if " dump " in line]
    assert len(commands) == 2
    text, as_json = map(run_shell, commands)
    assert (text.returncode, text.stderr, as_json.returncode, as_json.stderr) == (0, "", 0, "")
    assert "payload: Oh freddled gruntbuggly," in text.stdout
    assert '"type": "batch"' in as_json.stdout
    snippet = advice[advice.index("import pylog") : advice.index("All of this can go")]
    assert len(snippet.strip().splitlines()) == 3
    shown_records = run(sys.executable, "-c", snippet)
    assert shown_records.returncode == 0, shown_records.stderr
    assert shown_records.stdout.count("Record(topic='lines'") == min(3, len(LINES) - len(LINES) * 3 // 4)
    removal = re.search(r"rm -r .*", advice)
    assert removal is not None
    assert run_shell(removal.group()).returncode == 0
    assert not Path("it's new").exists()


def test_a_terminal_without_unicode_and_a_pipe_that_closes_do_no_harm(poem: Path) -> None:
    command = f"PYTHONIOENCODING=ascii {sys.executable} -m pylog demo --data one {poem}"
    assert run_shell(command).returncode == 0
    cut = run_shell(f"{sys.executable} -u -m pylog demo --data two {poem} | head -n 1")
    assert (cut.stdout.count("\n"), cut.stderr) == (1, "")
    with pylog.open("two") as log:  # whatever it had come to
        assert log.admin.list_topics() in ([], ["lines"])
