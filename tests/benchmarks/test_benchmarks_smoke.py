"""The benchmarks run, measure what they say, and lose no record. Nothing here judges a speed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import bench_aio, bench_engine, bench_queue, bench_sharing, harness
from benchmarks.harness import Bar, Comparison, Contender, Figures, Outcome, Workload
from benchmarks.peers import Peer
from benchmarks.pylog_peer import Pylog, PylogLz4

RECORDS = 300
BATCH_RECORDS = 100
VALUES = harness.distinct_values(RECORDS, 100)
ROUNDS = 2

STORES: list[type[Peer]] = [*bench_engine.peer_classes(), Pylog, PylogLz4]
COMPARISONS = bench_engine.comparisons(with_pylog=True) + bench_sharing.comparisons(big_log_bytes=3_000_000)
COMPARISONS += [replace(one, key=f"aio-{one.key}") for one in bench_aio.comparisons()]
COMPARISONS += [replace(one, key=f"queue-{one.key}") for one in bench_queue.comparisons()]


@pytest.mark.parametrize("produce", ["produce_one_by_one", "produce_batches"])
@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_a_store_gives_back_exactly_the_values_it_was_given(store: type[Peer], produce: str, tmp_path: Path) -> None:
    with store(tmp_path, batch_records=BATCH_RECORDS) as opened:
        opened.before_produce(VALUES)
        getattr(opened, produce)(VALUES)
        assert opened.count() == RECORDS
        opened.before_consume()
        assert list(itertools.chain.from_iterable(opened.chunks())) == VALUES


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.key)
def test_every_row_of_a_comparison_runs_and_every_bar_names_rows(comparison: Comparison, tmp_path: Path) -> None:
    workload = Workload(values=VALUES, batch_records=BATCH_RECORDS)
    outcome = harness.run(comparison, workload, rounds=1, directory=tmp_path)
    assert outcome.failures == {}
    assert list(outcome.rounds) == [contender.name for contender in comparison.contenders]
    installed = {peer.name for peer in STORES}
    for bar in comparison.bars:
        assert bar.subject in outcome.rounds
        if bar.reference in installed:
            assert outcome.ratio(bar) is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "produce",
    [Pylog.produce_one_by_one, Pylog.produce_batches, Pylog.produce_whole_list],
    ids=["send", "send_many-batches", "send_many-whole"],
)
def test_producing(produce: Callable[[Pylog, list[bytes]], None], benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    calls = 0

    def once(store: Pylog) -> None:
        nonlocal calls
        calls += 1
        produce(store, VALUES)

    with Pylog(tmp_path, batch_records=BATCH_RECORDS) as store:
        benchmark.pedantic(once, args=(store,), rounds=ROUNDS)  # type: ignore[no-untyped-call]
        assert calls > 0
        assert store.count() == calls * RECORDS


@pytest.mark.parametrize(
    "consume",
    [Pylog.consume, Pylog.consume_by_poll_columns, Pylog.iterate, Pylog.iterate_by_poll, Pylog.scan_columns],
    ids=["scan-tolist", "poll_columns-tolist", "read", "poll", "scan-columns"],
)
def test_consuming(consume: Callable[[Pylog], int], benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    with Pylog(tmp_path, batch_records=BATCH_RECORDS) as store:
        store.produce_batches(VALUES)
        store.before_consume()
        counted = benchmark.pedantic(  # type: ignore[no-untyped-call]
            consume, args=(store,), setup=store.before_consume, rounds=ROUNDS
        )
        assert counted == RECORDS


def _fixed(name: str, figures: list[float], turns: list[str]) -> Contender:
    supply = iter([0.0, *figures])  # the first is the warm-up's

    def measure(directory: Path, workload: Workload) -> Figures:
        assert list(directory.iterdir()) == []
        (directory / "left behind").write_bytes(workload.values[0])
        turns.append(name)
        return {"records/s": next(supply)}

    return Contender(name=name, measure=measure)


def _failing(name: str) -> Contender:
    def measure(_directory: Path, _workload: Workload) -> Figures:
        raise OSError("no such store")

    return Contender(name=name, measure=measure)


def _run(comparison: Comparison, directory: Path, *, rounds: int = 3) -> Outcome:
    workload = Workload(values=VALUES, batch_records=BATCH_RECORDS)
    return harness.run(comparison, workload, rounds=rounds, directory=directory)


def test_contenders_take_turns_in_fresh_directories_and_ratios_are_of_medians(tmp_path: Path) -> None:
    turns: list[str] = []
    bar = Bar(subject="a", reference="b", required=3)
    contenders = [_fixed("a", [60, 1, 70], turns), _fixed("b", [20, 900, 10], turns)]
    outcome = _run(Comparison(key="k", title="t", contenders=contenders, bars=[bar]), tmp_path)
    assert turns == ["a", "b"] * 4
    assert outcome.rounds["a"] == [{"records/s": 60}, {"records/s": 1}, {"records/s": 70}]
    assert outcome.ratio(bar) == 60 / 20
    assert outcome.missed() == []


@pytest.mark.parametrize(("higher_is_better", "missed"), [(True, True), (False, False)])
def test_a_bar_is_a_floor_for_rates_and_a_ceiling_for_latencies(
    higher_is_better: bool, missed: bool, tmp_path: Path
) -> None:
    bar = Bar(subject="a", reference="b", required=1)
    contenders = [_fixed("a", [1], []), _fixed("b", [2], [])]
    comparison = Comparison(key="k", title="t", contenders=contenders, bars=[bar], higher_is_better=higher_is_better)
    assert _run(comparison, tmp_path, rounds=1).missed() == ([bar] if missed else [])


def test_a_contender_that_fails_is_named_misses_its_bar_and_stops_no_other(tmp_path: Path) -> None:
    bar = Bar(subject="a", reference="b", required=0)
    comparison = Comparison(key="k", title="t", contenders=[_failing("a"), _fixed("b", [1, 2, 3], [])], bars=[bar])
    outcome = _run(comparison, tmp_path)
    assert outcome.failures == {"a": "OSError: no such store"}
    assert len(outcome.rounds["b"]) == 3
    assert outcome.missed() == [bar]
    assert "FAILED  OSError: no such store" in harness.table(outcome)


@pytest.mark.parametrize(
    ("contender", "flags", "status"),
    [
        (_fixed("a", [1], []), ["--check"], 1),
        (_fixed("a", [1], []), [], 0),
        (_fixed("a", [3], []), ["--check"], 0),
        (_failing("a"), [], 1),
    ],
    ids=["missed-checked", "missed-unchecked", "reached", "failed"],
)
def test_the_exit_status_tells_a_failure_and_under_check_a_missed_bar(
    contender: Contender, flags: list[str], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Bar(subject="a", reference="b", required=1)
    comparison = Comparison(key="k", title="t", contenders=[contender, _fixed("b", [2], [])], bars=[bar])
    small = ["--records", "10", "--rounds", "1", "--json", "--directory", str(tmp_path)]
    options = harness.argument_parser("").parse_args([*small, *flags])
    assert harness.main([comparison], options) == status
    document = json.loads(capsys.readouterr().out)
    assert set(document["machine"]) >= {"processor", "kernel", "python", "file system"}
    assert document["comparisons"][0]["rounds"]["b"] == [{"records/s": 2}]


def test_only_refuses_a_name_that_no_comparison_has() -> None:
    assert [chosen.key for chosen in harness.select(COMPARISONS, "consume,send")] == ["consume", "send"]
    with pytest.raises(SystemExit, match="nonsense"):
        harness.select(COMPARISONS, "send,nonsense")


def test_values_are_distinct_and_of_the_width_asked_for() -> None:
    assert len(set(VALUES)) == RECORDS
    assert set(map(len, VALUES)) == {100}
    with pytest.raises(ValueError, match="at least 8"):
        harness.distinct_values(2, 7)
