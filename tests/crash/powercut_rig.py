"""Cuts at some moment: a child works on a directory until the power goes, the next one checks what is left."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from powercut_child import Plan, Teller, open_log, verify, work
from powercut_disk import JOURNAL_LOST, JOURNAL_WRITTEN, Disk
from powercut_fork import LOSS_STATUS, Child, fork
from powercut_model import Kind, LossError, Model

import pylog

ANSWER_SECONDS_MAX = 60.0


class RigError(Exception):
    """A child failed before the power went."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line."""

    kind: str
    cuts: int
    variant: str
    seed: int
    skip_sync: int
    flush_ms: int
    slack_ms: int
    keep: Path | None


@dataclass
class Rig:
    """A disk, a directory on it, and what that must hold."""

    options: Options
    disk: Disk
    rng: random.Random
    cuts: int = 0
    cuts_in_recovery: int = 0  # at some moment of it
    calls_cut: int = 0
    kills: int = 0
    acknowledged: int = 0
    directories: int = 0
    oldest_lost_s: float = 0.0
    lost_in_window: int = 0
    generation: int = 0
    model: Model = field(init=False)
    path: Path = field(init=False)
    changing: bool = field(init=False)
    topics_min: int = field(init=False)

    def new_directory(self) -> None:
        """Forget the directory and begin another, on a new file system."""
        self.note_model()
        window_s = (self.options.flush_ms + self.options.slack_ms) / 1000
        self.changing = self.options.variant in ("change", "recovery", "calls") or self.rng.random() < 0.2
        self.changing = self.changing and self.options.variant != "window"
        self.model = Model(2000 if self.changing else 100_000, window_s if self.options.variant == "window" else None)
        self.directories += 1
        # The more partitions, the longer one goes without the next flush: a swallowed one is seen sooner.
        self.topics_min = self.rng.randint(1, 3) if self.options.skip_sync == 0 else 6
        self.path = self.disk.path / "deep" / "data" if self.rng.random() < 0.5 else self.disk.path / "data"
        self.disk.make()

    def note_model(self) -> None:
        """Add the model's counts to the rig's."""
        if hasattr(self, "model"):
            self.acknowledged += self.model.acknowledged_count
            self.lost_in_window += self.model.lost_count
            self.oldest_lost_s = max(self.oldest_lost_s, self.model.oldest_lost_s)
            self.model.acknowledged_count = self.model.lost_count = 0

    def plan(self, steps: int | None = None) -> Plan:
        """What the next child does."""
        self.generation += 1
        windowed = self.options.variant == "window"
        changing = self.changing and (steps is not None or self.rng.random() < 0.8)
        small = {"segment_bytes": self.rng.randint(4000, 12_000), "index_interval_bytes": 300}
        return Plan(
            path=self.path,
            generation=self.generation,
            seed=self.rng.getrandbits(32),
            acks=1 if windowed else "all",
            flush_ms=self.options.flush_ms if windowed else 1000,
            topics_min=self.topics_min,
            writers=1 if changing or windowed else self.rng.randint(1, 3),
            changing=changing,
            pausing=windowed,
            steps=steps,
            topic_settings=small if self.changing else {},
        )

    def how(self) -> int:
        """Mostly all that was not flushed is lost; sometimes the journal got there and the data did not."""
        return JOURNAL_WRITTEN if self.rng.random() < 0.25 else JOURNAL_LOST

    # -- a cut at some moment

    def cut_once(self) -> None:
        """One child, one cut; now and then a child before it that is killed while the power is on.

        What that one had not flushed is in the system's memory only: it is for recovery to put it on the disk.
        """
        self.disk.mount()
        self._keep()
        if self.rng.random() < 0.2:
            self._live(cut=False)
            self.kills += 1
        verified = self._live(cut=True)
        self.cuts += 1
        self.cuts_in_recovery += not verified
        self.disk.unmount()

    def _live(self, *, cut: bool) -> bool:
        """A child works for a random time, then the power goes and it is killed, or it is only killed.

        Returns whether it had verified what it found.
        """
        plan, model, verified = self.plan(), self.model, False
        child = fork(lambda teller, answer: live(plan, model, teller, answer))
        try:
            early = self.rng.random() < 0.15
            longest = 2.2 * (self.options.flush_ms + self.options.slack_ms) / 1000
            usual = self.rng.uniform(0, longest) if plan.pausing else min(self.rng.expovariate(1 / 0.012), 0.2)
            until = time.monotonic() + (self.rng.uniform(0, 0.012) if early else ANSWER_SECONDS_MAX)
            while (left := until - time.monotonic()) > 0 and not child.ended:
                if model.note(child.read(left), before_cut=True):
                    verified = True
                    until = time.monotonic() + usual
                    child.go_on()
            if not verified and not early and not child.ended:
                raise RigError(f"no answer after {ANSWER_SECONDS_MAX:.0f} s: the child hangs")
            verified |= model.note(child.drain(), before_cut=True)
            on_its_own = child.ended
            if cut:
                model.note_cut(time.monotonic())
                self.disk.cut(self.how())
        finally:
            status = child.reap()
            with contextlib.suppress(OSError):
                verified |= model.note(child.drain(), before_cut=not cut)
            child.close()
        if on_its_own:
            self.raise_end(child, status)
        return verified

    def raise_end(self, child: Child, status: int) -> None:
        """The child ended while the power was on."""
        if status == LOSS_STATUS:
            raise LossError(child.last_words)
        raise RigError(f"the child ended with {status} while the power was on:\n{child.last_words}")

    def _keep(self) -> None:
        if self.options.keep is not None and self.path.exists():
            shutil.rmtree(self.options.keep, ignore_errors=True)
            shutil.copytree(self.path, self.options.keep)

    # -- verifying without a cut

    def verify(self) -> None:
        """Open, check, close cleanly."""
        plan, model = self.plan(0), self.model
        self.disk.mount()
        self._keep()
        child = fork(lambda teller, answer: live(plan, model, teller, answer))
        status, _ = self.follow(child)
        if status != 0:
            self.raise_end(child, status)
        self.disk.unmount()

    def follow(self, child: Child) -> tuple[int, bool]:
        """Note what the child tells, answer it, until it ends; what it tells behind a CUT is behind the cut.

        Returns its exit status, and whether there was a CUT.
        """
        until, cut = time.monotonic() + ANSWER_SECONDS_MAX, False
        try:
            while not child.ended:
                if time.monotonic() > until:
                    raise RigError(f"no end after {ANSWER_SECONDS_MAX:.0f} s: the child hangs")
                for message in child.read(1):
                    cut |= message.kind == Kind.CUT
                    if self.model.note([message], before_cut=not cut):
                        child.go_on()
        except BaseException:
            child.reap()
            raise
        else:
            return child.end(), cut
        finally:
            child.close()


def live(plan: Plan, model: Model, teller: Teller, answer: int) -> None:
    """A child's life."""
    try:
        log = open_log(plan)
        verify(log, model, teller.tell)
    except pylog.PylogError as error:
        raise LossError("what the cut has left cannot be read:\n" + traceback.format_exc()) from error
    if os.read(answer, 1):
        work(plan, log, model, teller.tell)
