"""What workers commit: the watermark, and the offsets finished above it."""

import random
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylog import OffsetAndMetadata, Record, TopicPartition
from pylog._workers.finished import PREFIX, TEXT_BYTES_MAX, decode_finished, encode_finished
from pylog._workers.tracker import Tracker

TP = TopicPartition("orders", 0)


def records(*offsets: int) -> list[Record]:
    return [Record("orders", offset=offset) for offset in offsets]


def handed_out(tracker: Tracker, *offsets: int) -> list[int]:
    return [record.offset for record in tracker.take(records(*offsets))]


def committed(tracker: Tracker) -> tuple[int, list[tuple[int, int]]]:
    found = tracker.snapshot()
    return found.offset, decode_finished(found.offset, found.metadata)


# -- the text


@given(st.integers(0, 2**62), st.lists(st.tuples(st.integers(1, 2**20), st.integers(1, 2**20)), max_size=200))
def test_runs_come_back_as_they_were(watermark: int, steps: list[tuple[int, int]]) -> None:
    runs, at = [], watermark
    for gap, length in steps:
        runs.append((at + gap, at + gap + length))
        at += gap + length
    assert decode_finished(watermark, encode_finished(watermark, runs)) == runs


def test_nothing_finished_is_an_empty_text() -> None:
    assert encode_finished(5, []) == ""
    assert decode_finished(5, "") == []


@pytest.mark.parametrize("count", [1000, 10_000, 100_000])
def test_a_text_never_exceeds_its_limit_and_keeps_the_lowest_runs(count: int) -> None:
    chance = random.Random(count)
    runs, at = [], 0
    for _ in range(count):
        at += chance.randint(1, 300)
        runs.append((at, at + chance.randint(1, 300)))
        at = runs[-1][1]
    text = encode_finished(0, runs)
    assert len(text) <= TEXT_BYTES_MAX
    kept = decode_finished(0, text)
    assert kept == runs[: len(kept)]
    assert len(kept) > 900  # a limit that is used
    assert len(text) > TEXT_BYTES_MAX * 0.7 or len(kept) == count


def test_every_other_offset_of_what_the_default_lanes_hold_fits() -> None:
    runs = [(offset, offset + 1) for offset in range(1, 16_000, 2)]
    assert decode_finished(0, encode_finished(0, runs)) == runs


@pytest.mark.parametrize(
    "text",
    [
        "a user's own",
        PREFIX,
        PREFIX + "é",
        PREFIX + "AAAA",
        PREFIX + b64encode(zlib.compress(b"\x01")).decode(),  # half a run
        PREFIX + b64encode(zlib.compress(b"\x01\x80")).decode(),  # half a number
        PREFIX + b64encode(zlib.compress(bytes([1]) * (3 << 20))).decode(),  # more than anybody needs
    ],
)
def test_a_text_that_is_none_of_ours_means_nothing_finished(text: str) -> None:
    assert decode_finished(7, text) == []


def test_a_damaged_text_is_never_taken_for_other_runs() -> None:
    runs = [(10, 20), (500, 1000)]
    packed = bytearray(zlib.compress(b"\x0a\x0a\xe0\x03\xf4\x03"))
    assert decode_finished(0, PREFIX + b64encode(packed).decode()) == runs
    for bit in range(len(packed) * 8):
        packed[bit // 8] ^= 1 << bit % 8
        assert decode_finished(0, PREFIX + b64encode(packed).decode()) in ([], runs)  # the header has spare bits
        packed[bit // 8] ^= 1 << bit % 8


# -- the tracker


def test_the_watermark_is_the_lowest_unfinished_offset() -> None:
    tracker = Tracker(TP, 10)
    handed_out(tracker, 10, 11, 12, 13)
    assert committed(tracker) == (10, [])
    tracker.finish(12)
    assert committed(tracker) == (10, [(12, 13)])
    tracker.finish(10)
    assert committed(tracker) == (11, [(12, 13)])
    tracker.finish(11)
    assert committed(tracker) == (13, [])
    tracker.finish(13)
    assert tracker.snapshot() == OffsetAndMetadata(14)


def test_gaps_hold_nothing_back() -> None:
    tracker = Tracker(TP, 0)
    handed_out(tracker, 5, 9)
    tracker.finish(5)
    assert committed(tracker)[0] == 9
    tracker.finish(9)
    assert committed(tracker) == (10, [])
    tracker.advance(17)  # behind control batches
    assert committed(tracker) == (17, [])


def test_what_an_earlier_owner_has_finished_is_not_handed_out() -> None:
    tracker = Tracker(TP, 3, [(4, 6), (8, 9), (20, 30)])
    assert handed_out(tracker, 3, 4, 5, 6) == [3, 6]
    assert handed_out(tracker, 7, 8, 9) == [7, 9]


def test_what_an_earlier_owner_has_finished_is_committed_again_until_it_is_passed() -> None:
    tracker = Tracker(TP, 3, [(4, 6), (8, 9), (20, 30)])
    assert committed(tracker) == (3, [(4, 6), (8, 9), (20, 30)])
    handed_out(tracker, 3, 4)
    assert committed(tracker) == (3, [(4, 6), (8, 9), (20, 30)])
    handed_out(tracker, 5, 6, 7)
    tracker.finish(7)
    assert committed(tracker) == (3, [(4, 6), (7, 9), (20, 30)])
    tracker.finish(3)
    tracker.finish(6)
    assert committed(tracker) == (8, [(8, 9), (20, 30)])
    handed_out(tracker, 9)
    tracker.finish(9)
    tracker.advance(35)
    assert committed(tracker) == (35, [])


@given(st.integers(0, 2**32))
def test_after_any_deaths_all_is_handled_and_nothing_that_was_committed_as_finished_again(seed: int) -> None:
    chance = random.Random(seed)
    offsets = [offset for offset in range(100) if chance.random() < 0.8]
    done: set[int] = set()
    watermark, runs = 0, []
    for life in range(4):
        tracker = Tracker(TP, watermark, runs)
        rest = [offset for offset in offsets if offset >= watermark]
        known = {offset for offset in rest if any(start <= offset < end for start, end in runs)}
        in_hand: list[int] = []
        steps = 10_000 if life == 3 else chance.randint(0, 60)
        for _ in range(steps):
            if rest and chance.random() < 0.5:
                count = chance.randint(1, 10)
                fresh = handed_out(tracker, *rest[:count])
                assert not known.intersection(fresh)
                assert known.union(fresh).issuperset(rest[:count])
                in_hand += fresh
                del rest[:count]
            elif in_hand:
                offset = in_hand.pop(chance.randrange(len(in_hand)))
                tracker.finish(offset)
                done.add(offset)
            if chance.random() < 0.1:
                watermark, runs = committed(tracker)
        assert all(offset in done for offset in offsets if offset < watermark)
    assert done == set(offsets)
