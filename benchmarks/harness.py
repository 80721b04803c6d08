"""Interleaved rounds, medians, and ratios of medians.

A machine that others share slows down for seconds or minutes at a time. So the contenders of one comparison take turns
(A B C A B C ...), and only the ratio of their medians within that run is worth quoting.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import machine

WARM_UP_RECORDS_MAX = 20_000
VALUES_SEED = 20_200_101

Figures = dict[str, float]  # label with its unit -> figure; the first is the one that bars compare


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The records of one measurement: distinct values, and how many make a batch."""

    values: list[bytes]
    batch_records: int

    def first(self, records_max: int) -> Workload:
        """The same with at most the first ``records_max`` values."""
        return replace(self, values=self.values[:records_max])


class Store(ABC):
    """What is measured, opened in a directory. ``with`` closes it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Release what it holds open."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of a comparison. ``measure`` gets a fresh, empty directory and times only its own part."""

    name: str
    measure: Callable[[Path, Workload], Figures]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """How ``subject`` should stand to ``reference``: first figure of one divided by first figure of the other."""

    subject: str
    reference: str
    required: float | None = None
    aimed: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Contenders that take turns, and the ratios between them that matter."""

    key: str
    title: str
    contenders: Sequence[Contender]
    bars: Sequence[Bar] = ()
    higher_is_better: bool = True
    records_max: int | None = None


@dataclass(kw_only=True)
class Outcome:
    """All rounds of one comparison. ``failures`` names each contender that raised, and what."""

    comparison: Comparison
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float | None:
        """The median of a contender's first figure; None if it failed or did not run."""
        rounds = self.rounds.get(name)
        if not rounds or name in self.failures:
            return None
        return statistics.median(next(iter(figures.values())) for figures in rounds)

    def ratio(self, bar: Bar) -> float | None:
        """Median of the subject divided by median of the reference; None unless both ran."""
        subject, reference = self.median(bar.subject), self.median(bar.reference)
        return subject / reference if subject is not None and reference else None

    def reaches(self, ratio: float, limit: float) -> bool:
        """Whether a ratio is on the right side of a limit."""
        return ratio >= limit if self.comparison.higher_is_better else ratio <= limit

    def missed(self) -> list[Bar]:
        """Bars with a requirement that this run did not show to be met, be it because a contender failed."""
        verdicts = [(bar, self.ratio(bar)) for bar in self.comparison.bars if bar.required is not None]
        return [
            bar
            for bar, ratio in verdicts
            if ratio is None or (bar.required is not None and not self.reaches(ratio, bar.required))
        ]


def elapsed(work: Callable[[], object]) -> float:
    """Seconds that ``work()`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def latency_figures(seconds: Sequence[float]) -> Figures:
    """Median and 99th percentile of single latencies, in microseconds."""
    ordered = sorted(seconds)
    return {
        "p50 us": statistics.median(ordered) * 1e6,
        "p99 us": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e6,
    }


def distinct_values(count: int, value_bytes: int) -> list[bytes]:
    """``count`` different values of exactly ``value_bytes`` bytes, the same in every run; 8 bytes are the least."""
    if value_bytes < 8:
        raise ValueError(f"value_bytes is {value_bytes}; distinct values need at least 8")
    noise = random.Random(VALUES_SEED)
    return [i.to_bytes(8, "big") + noise.randbytes(value_bytes - 8) for i in range(count)]


def run(comparison: Comparison, workload: Workload, *, rounds: int, directory: Path) -> Outcome:
    """Warm every contender up once, then let them take turns ``rounds`` times.

    A contender that raises is recorded with its error and takes no further turn; the others go on.
    """
    outcome = Outcome(comparison=comparison)
    if comparison.records_max is not None:
        workload = workload.first(comparison.records_max)
    warm_up = workload.first(WARM_UP_RECORDS_MAX)
    for round_number in range(rounds + 1):
        for contender in comparison.contenders:
            if contender.name in outcome.failures:
                continue
            try:
                figures = _turn(contender, warm_up if round_number == 0 else workload, directory)
            except Exception as error:
                outcome.failures[contender.name] = f"{type(error).__name__}: {error}"
                continue
            if round_number > 0:
                outcome.rounds.setdefault(contender.name, []).append(figures)
    return outcome


def _turn(contender: Contender, workload: Workload, directory: Path) -> Figures:
    with tempfile.TemporaryDirectory(prefix="round-", dir=directory) as fresh:
        gc.collect()
        return contender.measure(Path(fresh), workload)


def table(outcome: Outcome) -> str:
    """The comparison as plain text: a line for each contender, then a line for each bar.

    The first figure has its median and extremes, any other only its median.
    """
    comparison = outcome.comparison
    lines = [f"{comparison.key}: {comparison.title}"]
    lines.append(f"  {'':<34} {'':<10} {'median':>12} {'least':>12} {'most':>12}")
    for contender in comparison.contenders:
        if contender.name in outcome.failures:
            lines.append(f"  {contender.name:<34} FAILED  {outcome.failures[contender.name]}")
            continue
        rounds = outcome.rounds.get(contender.name, [])
        if not rounds:
            continue
        first, *others = rounds[0]
        seen = [figures[first] for figures in rounds]
        cells = " ".join(f"{_number(x):>12}" for x in (statistics.median(seen), min(seen), max(seen)))
        line = f"  {contender.name:<34} {first:<10} {cells}"
        for label in others:
            line += f"   {label} {_number(statistics.median(figures[label] for figures in rounds))}"
        lines.append(line)
    lines.extend(f"  {_verdict(outcome, bar)}" for bar in comparison.bars)
    return "\n".join(lines)


def _verdict(outcome: Outcome, bar: Bar) -> str:
    ratio = outcome.ratio(bar)
    text = f"{bar.subject} / {bar.reference}: " + ("not measured" if ratio is None else f"{ratio:.2f}")
    for word, limit in (("bar", bar.required), ("aim", bar.aimed)):
        if limit is not None:
            side = "at least" if outcome.comparison.higher_is_better else "at most"
            text += f"; {word} {side} {limit:g}"
            if ratio is not None:
                text += " reached" if outcome.reaches(ratio, limit) else " MISSED"
    return text


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:,.1f}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The comparison with every round's figures, ready for ``json.dumps``."""
    comparison = outcome.comparison
    return {
        "key": comparison.key,
        "title": comparison.title,
        "higher_is_better": comparison.higher_is_better,
        "rounds": outcome.rounds,
        "failures": outcome.failures,
        "bars": [
            {
                "subject": bar.subject,
                "reference": bar.reference,
                "ratio": outcome.ratio(bar),
                "required": bar.required,
                "aimed": bar.aimed,
            }
            for bar in comparison.bars
        ],
    }


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark of this directory takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=_positive, default=5, help="turns of each contender, after one warm-up turn")
    parser.add_argument("--records", type=_positive, default=500_000, help="records of each turn")
    parser.add_argument("--value-bytes", type=_positive, default=100, help="bytes of each value, at least 8")
    parser.add_argument("--batch-records", type=_positive, default=1_000, help="records of a batch")
    parser.add_argument("--only", default="", metavar="KEY,...", help="run only these comparisons")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the temporary directories go; one file system for all contenders",
    )
    parser.add_argument("--list", action="store_true", help="name the comparisons and their contenders, run nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bar is not reached")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def select(comparisons: Iterable[Comparison], only: str) -> list[Comparison]:
    """Those named in the comma-separated ``only``, or all; an unknown name is a SystemExit."""
    known = {comparison.key: comparison for comparison in comparisons}
    wanted = [key.strip() for key in only.split(",") if key.strip()] or list(known)
    unknown = [key for key in wanted if key not in known]
    if unknown:
        raise SystemExit(f"--only: no comparison is called {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[key] for key in wanted]


def main(comparisons: Sequence[Comparison], options: argparse.Namespace, *, notes: Sequence[str] = ()) -> int:
    """Run, print, and return the exit status: 1 after a failed contender, or a missed bar under ``--check``."""
    chosen = select(comparisons, options.only)
    if options.list:
        for comparison in chosen:
            print(f"{comparison.key}: {comparison.title}")
            for contender in comparison.contenders:
                print(f"  {contender.name}")
        return 0
    where = machine.describe(options.directory)
    what = {name: getattr(options, name) for name in ("records", "value_bytes", "batch_records", "rounds")}
    if not options.json:
        for name, text in where.items():
            print(f"{name:<14} {text}")
        print(f"{'workload':<14} " + ", ".join(f"{name} {count:,}" for name, count in what.items()))
        for note in notes:
            print(f"{'note':<14} {note}")
    workload = Workload(
        values=distinct_values(options.records, options.value_bytes), batch_records=options.batch_records
    )
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="pylog-benchmark-", dir=options.directory) as parent:
        for comparison in chosen:
            outcome = run(comparison, workload, rounds=options.rounds, directory=Path(parent))
            outcomes.append(outcome)
            if not options.json:
                print(f"\n{table(outcome)}", flush=True)
    load_at_end = machine.load_average()
    if options.json:
        document = {"machine": where, "load_at_end": load_at_end, "workload": what, "notes": list(notes)}
        json.dump({**document, "comparisons": [as_json(outcome) for outcome in outcomes]}, sys.stdout, indent=1)
        print()
    else:
        print(f"\nload average at the end {load_at_end}")
    failed = any(outcome.failures for outcome in outcomes)
    missed = options.check and any(outcome.missed() for outcome in outcomes)
    return 1 if failed or missed else 0
