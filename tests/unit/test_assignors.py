"""Assignment strategies as functions: even, complete, and as Kafka's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylog import TopicPartition
from pylog._groups.assignors import STRATEGIES, Candidate

TOPICS = ("a", "b", "c")


def members(*subscriptions: str) -> list[Candidate]:
    return [Candidate(f"m{i}", frozenset(topics), ()) for i, topics in enumerate(subscriptions)]


def numbers(given_: dict[str, list[TopicPartition]]) -> dict[str, list[str]]:
    return {name: [f"{topic}{number}" for topic, number in tps] for name, tps in given_.items()}


def test_range_gives_runs_topic_by_topic() -> None:
    found = STRATEGIES["range"](members("ab", "ab"), {"a": 3, "b": 3})
    assert numbers(found) == {"m0": ["a0", "a1", "b0", "b1"], "m1": ["a2", "b2"]}


def test_round_robin_deals_all_topics_in_turn_and_skips_who_has_not_subscribed() -> None:
    found = STRATEGIES["roundrobin"](members("ab", "ab"), {"a": 3, "b": 3})
    assert numbers(found) == {"m0": ["a0", "a2", "b1"], "m1": ["a1", "b0", "b2"]}
    # The example of Kafka's documentation: three members, unequal subscriptions.
    found = STRATEGIES["roundrobin"](members("a", "ab", "abc"), {"a": 1, "b": 2, "c": 3})
    assert numbers(found) == {"m0": ["a0"], "m1": ["b0"], "m2": ["b1", "c0", "c1", "c2"]}


def test_sticky_moves_no_more_than_it_must() -> None:
    before = STRATEGIES["sticky"](members("a", "a"), {"a": 6})
    now = [
        *(Candidate(name, frozenset("a"), tuple(tps)) for name, tps in before.items()),
        Candidate("m9", frozenset("a"), ()),
    ]
    after = STRATEGIES["sticky"](now, {"a": 6})
    assert [len(tps) for tps in after.values()] == [2, 2, 2]
    for name in ("m0", "m1"):
        assert set(after[name]) <= set(before[name])


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[Candidate], dict[str, int]]:
    sizes = {topic: draw(st.integers(0, 7)) for topic in TOPICS}
    everything = [TopicPartition(topic, number) for topic, size in sizes.items() for number in range(size + 1)]
    found = []
    for i in range(draw(st.integers(1, 6))):
        owned = draw(st.lists(st.sampled_from(everything), unique=True, max_size=6))
        found.append(Candidate(f"m{i}", draw(st.frozensets(st.sampled_from(TOPICS))), tuple(owned)))
    return found, sizes


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@given(group=groups())
def test_each_partition_goes_to_one_subscriber_and_none_is_left(
    strategy: str, group: tuple[list[Candidate], dict[str, int]]
) -> None:
    candidates, sizes = group
    found = STRATEGIES[strategy](candidates, sizes)
    dealt = [tp for tps in found.values() for tp in tps]
    wanted = {topic for member in candidates for topic in member.topics}
    assert sorted(dealt) == sorted(TopicPartition(topic, number) for topic in wanted for number in range(sizes[topic]))
    for member in candidates:
        assert all(tp.topic in member.topics for tp in found[member.member_id])


@given(group=groups())
def test_sticky_is_as_even_as_subscriptions_allow(group: tuple[list[Candidate], dict[str, int]]) -> None:
    candidates, sizes = group
    found = STRATEGIES["sticky"](candidates, sizes)
    for giver in candidates:
        for taker in candidates:
            if len(found[giver.member_id]) - len(found[taker.member_id]) >= 2:
                assert not any(tp.topic in taker.topics for tp in found[giver.member_id])
