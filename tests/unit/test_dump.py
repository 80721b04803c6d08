"""`pylog dump` against what kafka-dump-log printed, of whole and of damaged files; and what is ours alone."""

import base64
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pylog
from pylog import _native, cli
from pylog._dump import java, main

GOLDEN = Path(__file__).parents[1] / "golden"
FLAGS = {
    ".data": ["--print-data-log"],
    ".deep": ["--deep-iteration"],
    ".bare": ["--print-data-log", "--skip-record-metadata"],
    ".offsets": ["--offsets-decoder"],
    ".txnlog": ["--transaction-log-decoder"],
}


class Run(NamedTuple):
    """What a call of main did."""

    code: int
    out: bytes
    err: bytes


class Dump:
    """Calls main in a directory."""

    def __init__(self, capture: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capture = capture
        self.monkeypatch = monkeypatch

    def __call__(self, where: Path, *arguments: str) -> Run:
        self.monkeypatch.chdir(where)
        self.capture.readouterr()
        code = main(list(arguments))
        found = self.capture.readouterr()
        return Run(code, found.out, found.err)

    def items(self, where: Path, *arguments: str) -> list[dict[str, Any]]:
        """The objects of --json."""
        return [json.loads(line) for line in self(where, "--json", *arguments).out.splitlines()]


@pytest.fixture
def dump(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Dump:
    return Dump(capfdbinary, monkeypatch)


def batch(records: list[bytes], *, base_offset: int = 0, attributes: int = 0) -> bytes:
    """A batch of magic 2 around encoded records."""
    covered = struct.pack(">hiqqqhii", attributes, len(records) - 1, 1000, 1000, -1, -1, -1, len(records))
    covered += b"".join(records)
    return struct.pack(">qiibI", base_offset, len(covered) + 9, 0, 2, _native.crc32c(covered)) + covered


def record(delta: int, key: bytes, value: bytes, *headers: bytes) -> bytes:
    """A record whose sizes all fit one byte of varint."""
    body = bytes([0, 0, 2 * delta, 2 * len(key)]) + key + bytes([2 * len(value)]) + value + bytes([2 * len(headers)])
    body += b"".join(bytes([2 * len(name)]) + name + b"\x01" for name in headers)
    assert len(body) < 64
    return bytes([2 * len(body)]) + body


def write_log(where: Path, *batches: bytes) -> str:
    """A .log of base offset 0; returns its name."""
    name = "00000000000000000000.log"
    (where / name).write_bytes(b"".join(batches))
    return name


def test_every_golden_dump_is_identical(golden: Path, dump: Dump) -> None:
    files = sorted((golden / "dump").rglob("*.txt"))
    assert len(files) == 281
    for file in files:
        name = file.name.removesuffix(".txt")
        suffix = next((suffix for suffix in FLAGS if name.endswith(suffix)), "")
        path = f"{file.parent.name}/{name.removesuffix(suffix)}"
        want, _, complaints = file.read_bytes().partition(b"STDERR ")
        run = dump(golden / "clean", *FLAGS.get(suffix, []), "--files", path)
        assert run.out == want, path
        assert run.err == complaints.replace(b"/tmp/g1/clean", os.fsencode(golden / "clean")), path
        assert run.code == 0, path


def test_damaged_files_print_what_kafka_printed(golden: Path, dump: Dump, tmp_path: Path) -> None:
    lines = lzma.decompress((GOLDEN / "dump-damaged.jsonl.xz").read_bytes()).decode().split("\n")
    cases = [json.loads(line) for line in lines if line]
    assert len(cases) > 300
    here = tmp_path / "p"
    for number, case in enumerate(cases):
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        base = Path(case["arguments"][-1]).name[:20]
        for file in (golden / "clean" / case["partition"]).glob(f"{base}*"):
            data = file.read_bytes()
            for at, removed, put_in in reversed(case["damage"].get(file.name, [])):
                data = data[:at] + bytes.fromhex(put_in) + data[at + removed :]
            (here / file.name).write_bytes(data)
        run = dump(tmp_path, *case["arguments"])
        assert run.out.decode() == case["stdout"], f"case {number}: {case}"
        if case["stderr"] is None:
            assert run.code == 1, f"case {number}: {case}"
            assert run.err.count(b"\n") >= 1
            assert b"Traceback" not in run.err
        else:
            assert run.err.decode() == case["stderr"].replace("{here}", str(tmp_path)), f"case {number}: {case}"


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_json_records_are_what_a_consumer_read(golden: Path, dump: Dump, codec: str) -> None:
    expected = [json.loads(line) for line in (golden / f"expected/codec-{codec}-0.jsonl").read_text().splitlines()[1:]]
    items = dump.items(golden / "clean", "--print-data-log", f"codec-{codec}-0")
    records = [item for item in items if item["type"] == "record"]
    assert [r["offset"] for r in records] == [r["offset"] for r in expected]
    assert [r["timestamp"] for r in records] == [r["timestamp"] for r in expected]
    for got, want in zip(records, expected, strict=True):
        for field in ("key", "value"):
            if want[field] is None or not want[field].startswith(("b64:", "sha256:")):
                assert got[field] == want[field]
            elif want[field].startswith("b64:"):
                data = base64.b64decode(want[field][4:])
                shown = got[field]
                assert (shown.encode() if isinstance(shown, str) else base64.b64decode(shown["base64"])) == data


def test_json_gives_bytes_as_base64_only_where_they_are_no_text(dump: Dump, tmp_path: Path) -> None:
    name = write_log(tmp_path, batch([record(0, "ü".encode(), b"\xff\x00", b"h"), record(1, b"", b"x")]))
    items = dump.items(tmp_path, "--print-data-log", name)
    assert [item["type"] for item in items] == ["batch", "record", "record"]
    assert {item["file"] for item in items} == {name}
    assert items[1]["key"] == "ü"
    assert items[1]["value"] == {"base64": "/wA="}
    assert items[1]["headers"] == [["h", None]]
    assert (items[2]["key"], items[2]["value"], items[2]["headers"]) == ("", "x", [])
    assert items[0]["isValid"] is True
    assert items[0]["deleteHorizonMs"] is None


def test_json_tells_of_each_file_kind(golden: Path, dump: Dump) -> None:
    items = dump.items(golden / "clean", "txn-0")
    kinds = {item["type"] for item in items}
    assert kinds >= {"batch", "index", "timeindex", "aborted", "producer", "setting"}
    aborted = next(item for item in items if item["type"] == "aborted")
    assert aborted["version"] == 0
    assert aborted["producerId"] == 12
    open_transactions = [i["currentTxnFirstOffset"] for i in items if i["type"] == "producer"]
    assert any(offset is not None for offset in open_transactions)
    assert None in open_transactions


def test_json_shows_control_records_and_decoded_topics_as_objects(golden: Path, dump: Dump) -> None:
    markers = [i for i in dump.items(golden / "clean", "--deep-iteration", "txn-0") if "endTxnMarker" in i]
    assert {marker["endTxnMarker"] for marker in markers} == {"ABORT", "COMMIT"}
    offsets = dump.items(golden / "clean", "--offsets-decoder", "__consumer_offsets-0/00000000000000000000.log")
    assert offsets[1]["key"] == {"type": "1", "data": {"group": "python", "topic": "codec-zstd", "partition": 0}}
    assert offsets[1]["value"]["data"]["offset"] == 17


def test_problems_reach_json_and_stderr(golden: Path, dump: Dump, tmp_path: Path) -> None:
    file = "txn-0/00000000000000000007.snapshot"
    data = bytearray((golden / "clean" / file).read_bytes())
    data[12] ^= 1
    (tmp_path / "00000000000000000007.snapshot").write_bytes(data)
    run = dump(tmp_path, "--json", "00000000000000000007.snapshot")
    assert run.code == 1
    item = json.loads(run.out)
    assert item["type"] == "problem"
    assert item["message"].startswith("Snapshot is corrupt (CRC is no longer valid). Stored crc: ")
    assert run.err.decode() == item["message"] + "\n"


def test_checkpoint_files_are_shown(golden: Path, dump: Dump, tmp_path: Path) -> None:
    run = dump(golden / "clean", "recovery-point-offset-checkpoint")
    assert run.code == 0
    lines = run.out.decode().splitlines()
    assert lines[0] == "Dumping recovery-point-offset-checkpoint"
    assert "topic: codec-lz4 partition: 0 offset: 320" in lines
    run = dump(golden / "clean", "epochs-0/leader-epoch-checkpoint", "epochs-0/partition.metadata")
    assert run.out.decode().count("epoch: ") == 4
    assert "\nversion: 0\ntopic_id: " in run.out.decode()
    (tmp_path / ".kafka_cleanshutdown").write_text('{"version":0,"brokerEpoch":5}')
    assert dump(tmp_path, ".kafka_cleanshutdown").out.endswith(b"\nclean shutdown version: 0 brokerEpoch: 5\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0\n2\na 0 1\n", "2 entries stated, 1 present"),
        ("1\n0\n", "version '1', 0 is known"),
        ("0\n1\na 0\n", "line 3, 'a 0', has not the form of the others"),
        ("", "does not begin with a version and a count"),
    ],
)
def test_broken_checkpoint_is_a_problem(dump: Dump, tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "replication-offset-checkpoint").write_text(text)
    run = dump(tmp_path, "replication-offset-checkpoint")
    assert run.code == 1
    assert run.err.decode() == f"replication-offset-checkpoint: {complaint}\n"


def test_directory_stands_for_its_files(golden: Path, dump: Dump) -> None:
    names = sorted(p.name for p in (golden / "clean/deleted-0").iterdir())
    one_by_one = dump(golden / "clean", "--files", ",".join(f"deleted-0/{name}" for name in names))
    assert dump(golden / "clean", "deleted-0/") == one_by_one
    assert one_by_one.out.count(b"Dumping ") == len(names) > 5


@pytest.mark.parametrize("name", ["cluster-metadata", "remote-log-metadata", "share-group-state"])
def test_decoders_of_other_topics_are_refused_with_a_sentence(dump: Dump, tmp_path: Path, name: str) -> None:
    run = dump(tmp_path, f"--{name}-decoder", "--files", "x.log")
    assert run.code == 2
    assert run.out == b""
    assert f"--{name}-decoder is not supported".encode() in run.err


@pytest.mark.parametrize(
    "arguments",
    [[], ["--files", ","], ["--unknown", "x.log"], ["--max-bytes", "x", "x.log"], ["--max-bytes", "-1", "x.log"],
     ["--value-decoder-class", "no-colon", "x.log"], ["--value-decoder-class", "no_such_module_x:f", "x.log"]],
)  # fmt: skip
def test_bad_usage_exits_2(dump: Dump, tmp_path: Path, arguments: list[str]) -> None:
    run = dump(tmp_path, *arguments)
    assert run.code == 2
    assert run.out == b""
    assert run.err


def test_help_exits_0_and_documents_json(dump: Dump, tmp_path: Path) -> None:
    run = dump(tmp_path, "--help")
    assert run.code == 0
    assert b'{"base64": "..."}' in run.out


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["--version"], 0), ([], 2), (["no-such-command"], 2), (["dump"], 2)]
)
def test_the_command_line_dispatches_and_exits(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    assert cli.main(arguments) == code
    found = capsys.readouterr()
    assert bool(found.out) == (code == 0)
    assert bool(found.err) == (code == 2)


def test_a_missing_or_unknown_file_does_not_stop_the_next(golden: Path, dump: Dump) -> None:
    index = "codec-none-0/00000000000000000000.index"
    alone = dump(golden / "clean", index)
    run = dump(golden / "clean", "--files", f"no-such-0/0.log,bootstrap.txt,x.log,{index}")
    assert run.code == 1
    assert run.out.endswith(alone.out)
    assert run.err.decode().splitlines() == [
        "no-such-0/0.log: No such file or directory",
        "Ignoring unknown file bootstrap.txt",
        "x.log: its name does not begin with an offset",
    ]


def test_decoder_functions_replace_text(golden: Path, dump: Dump, tmp_path: Path) -> None:
    name = write_log(tmp_path, batch([record(0, b"key", b"value")]))
    (tmp_path / "dump_test_decoders.py").write_text(
        "def size(data):\n    return f'<{len(data)}>'\ndef fail(data):\n    raise KeyError('x')\n"
    )
    shown = dump(tmp_path, "--value-decoder-class", "dump_test_decoders:size", name)
    assert shown.out.endswith(b"headerKeys: [] key: key payload: <5>\n")
    shown = dump(tmp_path, "--key-decoder-class", "dump_test_decoders:size", name)
    assert shown.out.endswith(b"headerKeys: [] key: <3> payload: value\n")
    failed = dump(tmp_path, "--value-decoder-class", "dump_test_decoders:fail", name)
    assert failed.code == 1
    assert b"the decoder function failed: KeyError: 'x'" in failed.err
    text = dump(tmp_path, "--print-data-log", name)
    named = dump(tmp_path, "--value-decoder-class", "org.apache.kafka.tools.api.StringDecoder", "--files", name)
    assert named == text


def test_max_bytes_reads_whole_batches_only_and_tells_of_no_trailing_bytes(dump: Dump, tmp_path: Path) -> None:
    one = batch([record(0, b"k", b"v")])
    name = write_log(tmp_path, one, batch([record(0, b"k", b"v")], base_offset=1), b"\x00" * 17)
    shown = dump(tmp_path, "--max-bytes", str(len(one) + 50), name)
    assert shown.out.count(b"baseOffset: ") == 1
    assert b"invalid bytes" not in shown.out
    everything = dump(tmp_path, name)
    assert everything.out.endswith(b"Found 17 invalid bytes at the end of " + name.encode() + b"\n")
    assert (shown.code, everything.code) == (0, 1)


def test_header_names_that_are_no_utf8_print_as_java_prints_them(dump: Dump, tmp_path: Path) -> None:
    name = write_log(tmp_path, batch([record(0, b"k", b"v", b"\xed\xa0\x80", "ü".encode(), b"")]))
    assert "headerKeys: [\ufffd,ü,]\n".encode() in dump(tmp_path, "--deep-iteration", name).out


def test_shown_text_is_utf8_in_any_locale(golden: Path) -> None:
    command = [sys.executable, "-m", "pylog", "dump", "--print-data-log", "--files", "odd-0/00000000000000000000.log"]
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    environment["PYTHONPATH"] = str(Path(pylog.__file__).parents[1])
    run = subprocess.run(command, cwd=golden / "clean", env=environment, capture_output=True, check=True)
    want = (golden / "dump/odd-0/00000000000000000000.log.data.txt").read_bytes().partition(b"STDERR ")[0]
    assert run.stdout == want


def test_a_reader_that_leaves_early_is_no_error(golden: Path) -> None:
    command = [sys.executable, "-m", "pylog", "dump", "--deep-iteration", "rolled-size-0"]
    environment = os.environ | {"PYTHONPATH": str(Path(pylog.__file__).parents[1])}
    with subprocess.Popen(
        command, cwd=golden / "clean", env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(b"Dumping ")
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xed\xa0\x80", "\ufffd"),
        (b"\xed\xa0A", "\ufffdA"),
        (b"\xed\xa0", "\ufffd"),
        (b"\xf0\x9f\x98", "\ufffd"),
        (b"\xe0\x80\x80", "\ufffd\ufffd\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),
    ],
)
def test_broken_utf8_is_replaced_as_by_java(data: bytes, text: str) -> None:
    assert java.text(data) == text


def test_json_text_is_written_as_by_jackson() -> None:
    tree = {"a": 'ü"\\\n\x1f\x7f/', "b": b"\x00\xff", "c": None, "d": [True, -1], "e": "\\u001f"}
    assert java.json_text(tree) == '{"a":"ü\\"\\\\\\n\\u001F\x7f/","b":"AP8=","c":null,"d":[true,-1],"e":"\\\\u001f"}'


def test_sequences_wrap_from_the_largest_int_to_0() -> None:
    assert java.sequence_after(0x7FFFFFFF, 1) == 0
    assert java.sequence_after(0x7FFFFFFE, 1) == 0x7FFFFFFF
    assert java.sequence_before(0, 1) == 0x7FFFFFFF
    assert java.sequence_before(5, 5) == 0


def test_a_killed_brokers_indexes_end_at_their_zero_tails(golden: Path, dump: Dump) -> None:
    base = "rolled-ms-0/00000000000000000400"
    assert (golden / f"killed/{base}.index").stat().st_size == 65536
    for kind in ("index", "timeindex"):
        run = dump(golden / "killed", f"{base}.{kind}")
        assert (run.code, run.err) == (0, b"")
        assert b"position: 0\n" not in run.out
        assert 2 < run.out.count(b"\n") < 100


def test_index_mismatches_are_told_from_the_largest_offset_down(golden: Path, dump: Dump, tmp_path: Path) -> None:
    base = "00000000000000000000"
    shutil.copy(golden / f"clean/rolled-ms-0/{base}.log", tmp_path)
    entries = bytearray((golden / f"clean/rolled-ms-0/{base}.index").read_bytes())
    entries[3] -= 1
    entries[19] -= 1
    (tmp_path / f"{base}.index").write_bytes(entries)
    run = dump(tmp_path, "--verify-index-only", f"{base}.index")
    assert run.out.decode() == f"Dumping {base}.index\n"
    # As kafka-dump-log 4.3.1 words and orders it.
    assert run.err.decode() == (
        f"Mismatches in :{tmp_path}/{base}.index\n"
        "  Index offset: 22, log offset: 23\n  Index offset: 17, log offset: 18\n"
    )


def test_a_message_of_magic_1_shows_its_header_and_no_records(dump: Dump, tmp_path: Path) -> None:
    covered = struct.pack(">bbqi", 1, 8, 1234, -1) + struct.pack(">i", 1) + b"v"
    name = write_log(tmp_path, struct.pack(">qiI", 7, len(covered) + 4, zlib.crc32(covered)) + covered)
    line = (
        f"offset: 7 position: 0 LogAppendTime: 1234 size: {len(covered) + 16} magic: 1 compresscodec: none"
        f" crc: {zlib.crc32(covered)} isvalid: true\n"
    )
    shallow = dump(tmp_path, name)
    assert (shallow.code, shallow.err) == (0, b"")
    assert shallow.out.decode().endswith(line)
    deep = dump(tmp_path, "--deep-iteration", name)
    assert deep.code == 1
    assert b"no records are read" in deep.err
