"""Which messages of a queue are whose: handing out, settling, giving back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from .._directory import storage_errors
from .._errors import OffsetOutOfRangeError, PylogError
from .._types import Array, Deserializer, Record
from .journal import Journal
from .rebuild import rebuild
from .settings import Settings
from .table import FRONTIER, NEVER, NEXT_DUE, OWNERS, Table
from .window import Part, Window

if TYPE_CHECKING:
    from .._log import Log
    from .._topic import Topic

MESSAGES, JOURNAL = 0, 1  # partitions
PARTS_MAX = 16  # that one claim looks at: others wait for the table meanwhile
DELAYED_PART = 512
LOOK_AHEAD = 1024  # messages behind others of their key that a claim looks past
DEATHS_LOOK_NS = 5_000_000
BURIAL_DELAY_NS = 1_000_000_000
REASON_BYTES_MAX = 8192

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Claim(NamedTuple):
    """Messages in flight with this handle: entries, offsets, deliveries with this one, and where their notes are."""

    slots: Array
    offsets: Array
    counts: Array
    notes: Array
    bodies: Array

    def take(self, which: Array) -> Claim:
        """Some of them."""
        return Claim(*(column[which] for column in self))


class State:
    """One handle's part in a queue.  Thread-safe."""

    def __init__(self, log: Log, topic: Topic, wanted: Settings) -> None:
        self.messages, journal = topic.partitions[MESSAGES], topic.partitions[JOURNAL]
        self.journal = Journal(log, journal, topic.batch_bytes_max)
        self.table = Table(log.directory.path / f"pylog.{topic.name}")
        self._claiming = threading.Lock()  # of the window; taken before the table
        self.window = Window(self.messages)
        self._looked_ns = 0  # for the dead
        try:
            with storage_errors(self.table.path), self.table.joining as alone:
                topic_id = topic.id or ""
                self.settings = (
                    rebuild(self.table, self.journal, self.messages, self.window, topic_id, wanted)
                    if alone or self.table.topic_id != topic_id
                    else Settings.from_json(self.table.settings)
                )
        except BaseException:
            self.table.close()
            raise
        self._by_key = self.settings.order == "key"

    # -- handing out

    def claim(self, count: int) -> tuple[Claim, Claim, bool]:
        """Take at most `count` messages that are due; those delivered too often; whether to try again at once."""
        with self._claiming:
            self.window.cover(int(self.table.words[FRONTIER]))  # read before others are kept from the table
            with self.table.held:
                now = time.monotonic_ns()
                self._release_dead(now)
                slots, again = self._pick_by_key(count, now) if self._by_key else self._pick(count, now)
                return *self._lease(slots, now), again

    def claim_next(
        self, kind: type[R], key: Deserializer | None, value: Deserializer | None
    ) -> tuple[int, R] | Claim | None:
        """The quick way to the message at the frontier, where nothing else is due; None: claim says what there is.

        A claim is given where a deserializer has failed.
        """
        table, window = self.table, self.window
        with self._claiming:
            if self._by_key or window.next_plain(int(table.words[FRONTIER])) < 0:
                return None
            with table.held:
                now, offset = time.monotonic_ns(), int(table.words[FRONTIER])
                at = window.next_plain(offset)
                if at < 0 or now >= table.words[NEXT_DUE] or now - self._looked_ns > DEATHS_LOOK_NS:
                    return None
                slot = table.enter_in_flight(offset, self._deadline(now))
            try:
                return slot, window.message_at(at, kind, key, value)
            except Exception:
                return Claim(*(np.array([column]) for column in (slot, offset, 1, -1, -1)))

    def is_promising(self) -> bool:
        """Whether a claim may find something; a glance, without keeping anybody from the table."""
        words, now = self.table.words, time.monotonic_ns()
        if now >= words[NEXT_DUE] or self.messages.native.state().log_end_offset > words[FRONTIER]:
            return True
        return self.table.count() > 0 and (self._by_key or now - self._looked_ns > DEATHS_LOOK_NS)

    def seconds_to_due(self) -> float:
        """How long until something is due that waits now."""
        due = int(self.table.words[NEXT_DUE])
        return max(0.0, (due - time.monotonic_ns()) / 1e9) if due < NEVER else float("inf")

    def _release_dead(self, now: int) -> None:
        if now - self._looked_ns < DEATHS_LOOK_NS:
            return
        self._looked_ns = now
        table = self.table
        for owner in np.flatnonzero(table.counters[: int(table.words[OWNERS]) + 1]).tolist():
            if owner not in (0, table.me) and not table.lives(owner):
                table.release(owner)

    def _pick(self, count: int, now: int) -> tuple[Array, bool]:
        """Those that wait and are due first, then those behind the frontier."""
        table = self.table
        picked = [self._due(count, now)] if now >= table.words[NEXT_DUE] else []
        left = count - sum(map(len, picked))
        parts = least = 0
        while left > 0 and parts < PARTS_MAX and (part := self._next_part(max(left, least))) is not None:
            parts += 1
            dues = part.dues()
            slots = self._enter(part, dues, 0)
            later = dues > now
            if later.any():
                table.due_at(int(dues[later].min()))
                slots, least = slots[~later], DELAYED_PART  # there may be many more
            if len(slots) > left:
                table.due_at(0)
            picked.append(slots[:left])
            left -= len(picked[-1])
        return np.concatenate([np.zeros(0, np.intp), *picked]).astype(np.intp), left > 0 and parts == PARTS_MAX

    def _due(self, count: int, now: int) -> Array:
        offsets, dues = self.table.entries["offset"], self.table.entries["due"]
        live = offsets >= 0
        ready = np.flatnonzero(live & (dues <= now))
        ready = ready[np.argsort(offsets[ready])][:count]
        live[ready] = False
        rest = dues[live]
        self.table.words[NEXT_DUE] = rest.min() if len(rest) else NEVER
        return ready

    def _pick_by_key(self, count: int, now: int) -> tuple[Array, bool]:
        """Only the first message of each key that is not settled may be handed out; who waits, waits for its turn."""
        table = self.table
        for parts in range(PARTS_MAX + 1):
            slots = table.live()
            keys = table.entries["key"][slots]
            is_first = keys == 0
            is_first[np.unique(keys, return_index=True)[1]] = True
            firsts = slots[is_first]
            dues = table.entries["due"][firsts]
            ready = firsts[dues <= now][:count]
            behind = len(slots) - len(firsts)
            if len(ready) >= count or behind >= LOOK_AHEAD or parts == PARTS_MAX:
                break
            part = self._next_part(max(count - len(ready), 64))
            if part is None:
                break
            self._enter(part, part.dues(), part.keys())
        rest = np.sort(dues)[len(ready) :]  # those that are due come first
        table.words[NEXT_DUE] = rest[0] if len(rest) else NEVER
        return ready, not len(ready) and parts == PARTS_MAX

    def _next_part(self, count: int) -> Part | None:
        frontier = int(self.table.words[FRONTIER])
        if not self.window.cover(frontier):
            return None
        part = self.window.part(frontier, count)
        return part if len(part.offsets) else None

    def _enter(self, part: Part, dues: Array, keys: Array | int) -> Array:
        slots = self.table.enter(part.offsets, dues, keys)
        self.table.words[FRONTIER] = part.offsets[-1] + 1  # last: an entry that is not below it is nobody's
        return slots

    def _lease(self, slots: Array, now: int) -> tuple[Claim, Claim]:
        entries, most = self.table.entries, self.settings.max_deliveries
        counts = entries["count"][slots]
        spent = np.zeros(len(slots), bool) if most is None else counts >= most
        counts = counts + ~spent
        self.table.lease(slots, self._deadline(now), counts)
        claim = Claim(slots, entries["offset"][slots], counts, entries["note"][slots], entries["body"][slots])
        return (claim.take(~spent), claim.take(spent)) if spent.any() else (claim, claim.take(spent))

    def read(self, claim: Claim, kind: type[R], key: Deserializer | None, value: Deserializer | None) -> list[R | None]:
        """The claimed messages, with the headers that they were put with; None: it is no longer there."""
        carried = claim.bodies >= 0
        with self._claiming:
            found = self.window.messages(claim.offsets[~carried], kind, key, value)
        for at in np.flatnonzero(carried).tolist():
            found.insert(at, None)
        for at in [at for at, message in enumerate(found) if message is None]:
            body = self._look_up("body", claim, at, self.journal.body)
            if body is not None:
                found[at] = _as_kind(body, kind, self.messages.tp.topic, key, value)
        return found

    def reason(self, claim: Claim, at: int) -> str | None:
        """Why a claimed message came back; None: nobody said."""
        return self._look_up("note", claim, at, self.journal.reason) if claim.notes[at] >= 0 else None

    def _look_up(self, name: str, claim: Claim, at: int, read: Callable[[int], T]) -> T | None:
        """What an entry points to in the journal.  Others may move it, or carry the message there, at any time."""
        where = int((claim.bodies if name == "body" else claim.notes)[at])
        if where >= 0:
            with contextlib.suppress(OffsetOutOfRangeError):
                return read(where)
        with self.table.held:
            entry = self.table.entries[int(claim.slots[at])]
            return read(int(entry[name])) if entry["offset"] == claim.offsets[at] and entry[name] >= 0 else None

    def _deadline(self, now: int) -> int:
        lock_ms = self.settings.lock_ms
        return NEVER if lock_ms is None else min(NEVER, now + lock_ms * 1_000_000)

    # -- settling

    def settle(self, slots: Array, offsets: Array, counts: Array) -> Array:
        """They are done with; which of them were still this handle's."""
        with self.table.held:
            mine = self._are_mine(slots, offsets, counts)
            if mine.any():
                self.journal.ack(np.sort(offsets[mine]))
                self.table.remove(slots[mine])
        return mine

    def settle_one(self, slot: int, offset: int, count: int) -> bool:
        """The same for one; whether it was still this handle's."""
        with self.table.held:
            if not self.table.is_mine(slot, offset, count):
                return False
            self.journal.ack_one(offset)
            self.table.remove_one(slot)
        return True

    def nack(self, slot: int, offset: int, count: int, delay: float, reason: str) -> bool:
        """It waits for so many seconds; whether it was still this handle's."""
        one = np.array([slot])
        with self.table.held:
            if not self.table.is_mine(slot, offset, count):
                return False
            told = reason.encode(errors="replace")[: min(REASON_BYTES_MAX, self.journal.bytes_max // 4)]
            due_ms = -(-(time.time_ns() + int(delay * 1e9)) // 1_000_000) if delay else 0
            note = self.journal.nack(offset, due_ms, count, told)
            self.table.entries["note"][slot] = note if told else -1
            self.table.put_back(one, time.monotonic_ns() + int(delay * 1e9) if delay else 0)
        return True

    def extend(self, slot: int, offset: int, count: int) -> bool:
        """Its lease begins anew; whether it was still this handle's."""
        with self.table.held:
            if not self.table.is_mine(slot, offset, count):
                return False
            self.table.entries["due"][slot] = self._deadline(time.monotonic_ns())
        return True

    def held_by_me(self, slots: Array, offsets: Array, counts: Array) -> Claim:
        """What is known of those that are still this handle's."""
        with self.table.held:
            mine = self._are_mine(slots, offsets, counts)
            notes, bodies = (self.table.entries[name][slots] for name in ("note", "body"))
        return Claim(slots, offsets, counts, notes, bodies).take(mine)

    def release(self, claim: Claim) -> None:
        """They were taken to be buried, and could not be: another time."""
        with self.table.held:
            claim = claim.take(self._are_mine(claim.slots, claim.offsets, claim.counts))
            self.table.put_back(claim.slots, time.monotonic_ns() + BURIAL_DELAY_NS)

    def give_back(self, claim: Claim) -> None:
        """Nobody has got them: this was no delivery."""
        with self.table.held:
            claim = claim.take(self._are_mine(claim.slots, claim.offsets, claim.counts))
            self.table.entries["count"][claim.slots] = claim.counts - 1
            self.table.put_back(claim.slots, 0)

    def _are_mine(self, slots: Array, offsets: Array, counts: Array) -> Array:
        entries = self.table.entries
        mine: Array = (
            (entries["offset"][slots] == offsets)
            & (entries["owner"][slots] == self.table.me)
            & (entries["count"][slots] == counts)
        )
        return mine

    def size(self) -> int:
        """How many messages are not settled."""
        with self.table.held:
            behind = self.messages.native.state().log_end_offset - int(self.table.words[FRONTIER])
            return self.table.count() + max(0, behind)

    # -- closing

    def close(self) -> None:
        """What is in flight here may be handed out again."""
        self.table.close()

    def mark_forked(self, error: type[PylogError]) -> None:
        """In a forked child: the parent's."""
        self._claiming = threading.Lock()
        self.table.mark_forked(error)


def _as_kind(body: Record, kind: type[R], topic: str, key: Deserializer | None, value: Deserializer | None) -> R:
    return kind(
        topic,
        body.value if value is None or body.value is None else value(body.value),
        body.key if key is None or body.key is None else key(body.key),
        body.headers,
        0,
        body.offset,
        body.timestamp,
    )
