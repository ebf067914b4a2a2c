"""The arena: nothing that is alive at the same time overlaps, and little is wasted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from convc.lowering.memory import Lifetime, plan_arena

many = settings(deadline=None, max_examples=200, derandomize=True)


@st.composite
def lifetimes(draw) -> dict[str, Lifetime]:
    buffers = {}
    for index in range(draw(st.integers(0, 12))):
        first = draw(st.integers(0, 10))
        last = first + draw(st.integers(0, 5))
        buffers[f"b{index}"] = Lifetime(draw(st.sampled_from([0, 1, 63, 64, 65, 500])), first, last)
    return buffers


@many
@given(lifetimes())
def test_buffers_alive_together_do_not_overlap(buffers):
    offsets, size = plan_arena(buffers)
    assert set(offsets) == set(buffers)
    for a in buffers:
        assert offsets[a] % 64 == 0
        assert 0 <= offsets[a] <= offsets[a] + buffers[a].nbytes <= size
        for b in buffers:
            together = buffers[a].first <= buffers[b].last and buffers[b].first <= buffers[a].last
            if a < b and together:
                ends = offsets[a] + buffers[a].nbytes, offsets[b] + buffers[b].nbytes
                assert ends[0] <= offsets[b] or ends[1] <= offsets[a]


@many
@given(lifetimes())
def test_size_is_between_the_most_alive_and_the_sum(buffers):
    _, size = plan_arena(buffers)
    rounded = {name: -(-b.nbytes // 64) * 64 for name, b in buffers.items()}
    alive = (
        sum(b.nbytes for b in buffers.values() if b.first <= time <= b.last) for time in range(16)
    )
    assert max(alive, default=0) <= size <= sum(rounded.values())
    assert size % 64 == 0


@many
@given(lifetimes(), st.randoms(use_true_random=False))
def test_the_order_of_the_buffers_does_not_matter(buffers, random):
    names = list(buffers)
    random.shuffle(names)
    assert plan_arena({name: buffers[name] for name in names}) == plan_arena(buffers)


def test_memory_is_reused_along_a_chain():
    chain = {f"v{i}": Lifetime(1000, i, i + 1) for i in range(20)}
    assert plan_arena(chain)[1] == 2048
