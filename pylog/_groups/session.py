"""A consumer's dealings with its group: rebalances, commits, and the listener that is told of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .._errors import CommitFailedError, FencedInstanceIdError, PylogError
from .._future import Settled
from .._types import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition
from .group_file import group_file_name
from .member import Member
from .offsets import Offsets

if TYPE_CHECKING:
    from .._log import Log

logger = logging.getLogger("pylog")

Callback = Callable[[Mapping[TopicPartition, OffsetAndMetadata], "Exception | None"], object]


class ConsumerRebalanceListener:
    """Is told what its consumer loses and gains, inside poll and iteration, in the consumer's thread."""

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """These go to others after this returns; the place to commit what was processed of them."""

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """These have come; the place to seek, and to load what belongs to them."""

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """These are others' already.  Unless it is overridden: the same as on_partitions_revoked."""
        self.on_partitions_revoked(lost)


class Holder(Protocol):
    """The consumer: what it reads, and from where."""

    def positions(self) -> dict[TopicPartition, int]:
        """Offsets of the next records to be handed out, where that is decided."""

    def hold(self, partitions: Collection[TopicPartition]) -> None:
        """Read these and no others."""


class GroupSession:
    """Used by the consumer's thread alone, but for close."""

    def __init__(self, log: Log, config: Mapping[str, Any], holder: Holder) -> None:
        self._log = log
        self._holder = holder
        self.group: str = config["group_id"]
        self._instance: str | None = config["group_instance_id"]
        self._strategies: Collection[str] = config["partition_assignment_strategy"]
        self._interval_seconds: float | None = (
            config["auto_commit_interval_ms"] / 1000 if config["enable_auto_commit"] else None
        )
        self._due = time.monotonic() + (self._interval_seconds or 0)
        self._last: dict[TopicPartition, int] = {}  # what is known to be committed
        self._member: Member | None = None
        self._listener = ConsumerRebalanceListener()
        self._told_first = False
        self._callbacks: list[Callable[[], object]] = []
        group_file_name(self.group)  # it must be possible

    # -- membership

    @property
    def is_member(self) -> bool:
        """Whether the group gives this consumer its partitions."""
        return self._member is not None

    def subscribe(
        self, topics: Collection[str] | None, pattern: str | None, listener: ConsumerRebalanceListener | None
    ) -> None:
        """Enter the group, or stay in it with other topics."""
        self._log.check_writable()
        self._listener = listener or ConsumerRebalanceListener()
        if self._member is None:
            # What is to be read first is read now: once it is a member, it may be given partitions.
            self._log.groups.offsets.of(self.group)
            self._member = Member(self._log, self.group, instance=self._instance, strategies=list(self._strategies))
            self._told_first = False
        try:
            self._member.join(topics, pattern)
        except BaseException:
            self._member.leave()
            self._member = None
            raise

    def leave(self, *, autocommit: bool = True) -> None:
        """Leave the group, if it was entered; the listener is told."""
        member = self._member
        if member is None:
            return
        try:
            owned = set(member.owned)
            if autocommit:
                self._commit_positions(owned)
            if owned:
                self._listener.on_partitions_revoked(owned)
        finally:
            self._holder.hold(())
            member.leave()
            self._member = None  # last: what Ctrl-C keeps from being left, abandon leaves

    def abandon(self) -> None:
        """Leave without a word, unless that was done: the consumer is in another thread's hands, or Ctrl-C came."""
        if self._member is not None:
            self._member.leave()

    def mark_forked(self) -> None:
        """In a forked child: the parent's."""
        if self._member is not None:
            self._member.mark_forked()

    def follow(self, *, topics_changed: bool) -> None:
        """Commit if it is time; take up what the group has decided.  Raises FencedInstanceIdError."""
        self._run_callbacks()
        if self._interval_seconds is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._interval_seconds
            try:
                self._commit_positions(None)
            except (PylogError, OSError) as error:  # it comes again; close raises
                logger.warning("group %s: auto-commit failed: %s", self.group, error)
        member = self._member
        if member is None:
            return
        if topics_changed:
            member.topics_changed()
        if topics_changed or member.changed():
            self._rebalance(member)

    def _rebalance(self, member: Member) -> None:
        owned = set(member.owned)
        try:
            lost = member.to_lose()
        except FencedInstanceIdError:
            self._holder.hold(())
            self._listener.on_partitions_lost(owned)
            raise
        if lost:
            try:
                if self._interval_seconds is not None:
                    self._commit_positions(lost)
                self._listener.on_partitions_revoked(lost)
            finally:
                self._holder.hold(member.owned - lost)
                for tp in lost:
                    self._last.pop(tp, None)
                member.let_go(lost)
        gained = member.gain()
        self._holder.hold(member.owned)  # also where a topic was made anew under its name
        if gained or not self._told_first:
            self._told_first = True
            self._listener.on_partitions_assigned(gained)

    def metadata(self) -> ConsumerGroupMetadata:
        """What tells this member from others."""
        member = self._member
        if member is None:
            return ConsumerGroupMetadata(self.group, group_instance_id=self._instance)
        return ConsumerGroupMetadata(self.group, member.generation, member.member_id, self._instance)

    # -- offsets

    def committed(self, tp: TopicPartition) -> OffsetAndMetadata | None:
        """What the group has committed for a partition."""
        return self._log.groups.offsets.find(self.group, TopicPartition(*tp))

    def start(self, tp: TopicPartition) -> int | None:
        """Where the group goes on; None: it has not been there."""
        found = self.committed(tp)
        if found is None:
            return None
        self._last[tp] = found.offset
        return found.offset

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None) -> Offsets:
        """Commit these, or the positions.  Raises CommitFailedError, FencedInstanceIdError."""
        self._run_callbacks()
        wanted = (
            {tp: OffsetAndMetadata(offset) for tp, offset in self._holder.positions().items()}
            if offsets is None
            else {TopicPartition(*tp): _checked(tp, offset) for tp, offset in offsets.items()}
        )
        self._check_may_commit(wanted)
        self._log.groups.offsets.commit(self.group, wanted)
        self._last.update((tp, offset.offset) for tp, offset in wanted.items())
        return wanted

    def commit_async(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata] | None, callback: Callback | None
    ) -> Settled[None]:
        """The same; what came of it is told by the future, and to `callback` in the next poll, commit or close."""
        error: Exception | None = None
        done: Mapping[TopicPartition, OffsetAndMetadata] = offsets or {}
        try:
            done = self.commit(offsets)
        except Exception as failed:
            error = failed
        if callback is not None:
            self._callbacks.append(lambda: callback(done, error))
        return Settled(None, error)

    def close(self, *, autocommit: bool) -> None:
        """Commit if that is automatic, and leave."""
        try:
            self._run_callbacks()
            if autocommit and self._member is None:
                self._commit_positions(None)
        finally:
            self.leave(autocommit=autocommit)

    def _commit_positions(self, of: Collection[TopicPartition] | None) -> None:
        """Automatically, what has moved since the last time."""
        if self._interval_seconds is None:
            return
        moved = {
            tp: OffsetAndMetadata(offset)
            for tp, offset in self._holder.positions().items()
            if (of is None or tp in of) and self._last.get(tp) != offset
        }
        if moved:
            self.commit(moved)

    def _check_may_commit(self, offsets: Collection[TopicPartition]) -> None:
        """Who owns a partition commits for it; who was given it by hand, while the group has no members."""
        if self._member is not None:
            self._member.check_fenced()
            foreign = sorted(tp for tp in offsets if tp not in self._member.owned)
            if foreign:
                names = ", ".join(f"{topic}-{number}" for topic, number in foreign)
                raise CommitFailedError(
                    f"group {self.group}: {names} not owned by this member (any more): who owns them now goes "
                    "on from what was committed last"
                )
        elif self._log.groups.is_alive(self.group):
            raise CommitFailedError(
                f"group {self.group} has members; a consumer with assigned partitions cannot commit for it"
            )

    def _run_callbacks(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


def _checked(tp: Any, offset: Any) -> OffsetAndMetadata:
    given = offset if isinstance(offset, tuple) else (offset,)
    if not given or type(given[0]) is not int:
        raise TypeError(f"{tp}: an OffsetAndMetadata is expected, not {offset!r}")
    if given[0] < 0:
        raise ValueError(f"{tp}: an offset is not negative: {given[0]}")
    return OffsetAndMetadata(*given)
