"""Which pictures an HEVC stream keeps, and what is missed when a header is damaged."""

import random

import numpy as np
import pytest

from mmmedia.errors import NotSeekableError
from mmmedia.video.decoders.bitstreams.analyse import analyse
from mmmedia.video.decoders.bitstreams.bits import BitReader, BitTable, BitWriter
from mmmedia.video.decoders.bitstreams.hevc_sets import ReferenceSet, _read_set, lack_references, read_kept
from mmmedia.video.decoders.packets import index
from support.clips import clip
from support.corpus import SHAPES, x265
from support.picking import Pick

SETS: list[ReferenceSet] = [[(-1, True)], [(-2, True), (-4, False), (2, True)], [(-8, True), (4, False)]]
SIZE = {"codec": "libx265", "container": "matroska", "frames": 60, "width": 96, "height": 64}


def told_in_full(writer: BitWriter, entries: ReferenceSet) -> None:
    sides = [each for each in entries if each[0] < 0], [each for each in entries if each[0] > 0]
    for side in sides:
        writer.ue(len(side))
    for side in sides:
        last = 0
        for distance, used in side:
            writer.ue(abs(distance - last) - 1)
            writer.u(1, used)
            last = distance


def told_by_another(writer: BitWriter, step: int, flags: list[tuple[int, int]]) -> None:
    writer.u(1, step < 0)
    writer.ue(abs(step) - 1)
    for used, stays in flags:
        writer.u(1, used)
        if not used:
            writer.u(1, stays)


def rows_of(*writers: BitWriter) -> BitTable:
    payloads = [writer.finish().ljust(32, b"\0") for writer in writers]
    return BitTable(np.frombuffer(b"".join(payloads), np.uint8).reshape(-1, 32))


def sets_of(kept) -> list[set[tuple[int, bool]]]:
    return [{(int(d), bool(u)) for d, u in zip(*row, strict=True) if d} for row in zip(*kept, strict=True)]


class TestSetsOfSlices:
    def test_all_three_ways_of_telling(self) -> None:
        """By number, in full, and by what is other than in one of the list."""
        named, full, changed, none = BitWriter(), BitWriter(), BitWriter(), BitWriter()
        named.u(1, 1)
        named.u(2, 2)
        full.u(2, 0)
        told_in_full(full, [(-3, False), (-4, True), (1, True), (7, False)])
        changed.u(2, 1)
        changed.ue(1)  # the last but one
        told_by_another(changed, -1, [(1, 0), (0, 0), (0, 1), (1, 0)])
        none.u(32, 0)
        where = np.array([True, True, True, False])
        table = rows_of(named, full, changed, none)
        found = sets_of(read_kept(table, where, SETS))
        assert not table.bad.any()
        assert found == [
            set(SETS[2]),
            {(-3, False), (-4, True), (1, True), (7, False)},
            {(-3, True), (1, False), (-1, True)},
            set(),
        ]

    def test_a_table_says_what_a_reader_says(self) -> None:
        """A set that is told by the one before it, in the list and in a slice."""
        rng = random.Random(3)
        for _ in range(50):
            step = rng.choice([-3, -2, -1, 1, 2, 3])
            flags = [(rng.randrange(2), rng.randrange(2)) for _ in range(len(SETS[-1]) + 1)]
            listed, sliced = BitWriter(), BitWriter()
            listed.u(1, 1)
            told_by_another(listed, step, flags)
            sliced.u(2, 1)
            sliced.ue(0)
            told_by_another(sliced, step, flags)
            scalar = _read_set(BitReader(listed.finish()), SETS)
            (found,) = sets_of(read_kept(rows_of(sliced), np.array([True]), SETS))
            assert found == set(scalar)

    def test_what_is_not_in_the_list_is_bad(self) -> None:
        named, many = BitWriter(), BitWriter()
        named.u(1, 1)
        named.u(2, 3)
        many.u(2, 0)
        many.ue(17)
        many.ue(0)
        table = rows_of(named, many)
        read_kept(table, np.array([True, True]), SETS)
        assert table.bad.tolist() == [True, True]

    def test_who_lacks_what(self) -> None:
        """A picture that another let go is not there; one that leads may lack any."""
        writers = []
        for entries in ([], [(-1, True)], [(-2, False)], [(-2, True)], [(-9, True)]):
            writer = BitWriter()
            writer.u(1, 0)
            told_in_full(writer, entries)
            writers.append(writer)
        kept = read_kept(rows_of(*writers), np.ones(5, np.bool_), [])
        reset = np.array([True, False, False, False, False])
        none = np.zeros(5, np.bool_)
        counts = np.arange(5)
        assert lack_references(counts, reset, kept, none).tolist() == [False, False, False, True, True]
        leading = np.array([False, False, False, False, True])
        assert lack_references(counts, reset, kept, leading).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("shape", SHAPES["libx265"], ids=str)
def test_intact_streams_lack_nothing(shape) -> None:
    lacking = analyse(index.build(clip(**SIZE, **shape))).lacking
    assert lacking is not None
    assert not lacking.any()


def test_a_header_that_lets_pictures_go_is_not_left_out_unseen() -> None:
    """Behind it a decoder has not all pictures, though nothing refers to the one whose header it is."""
    data = clip(**SIZE, **x265("keyint=20:bframes=3:b-adapt=0"))
    packets = index.build(data)
    structure = analyse(packets)
    position = int(np.flatnonzero(structure.disposable)[1])
    rank = int(structure.ranks[position])
    wanted = [[number] for number in range(rank - 3, rank + 8) if number != rank]
    noticed = 0
    for bit in range(8 * 7, 8 * 11):
        broken = bytearray(data)
        broken[int(packets.offset[position]) + bit // 8] ^= 0x80 >> bit % 8
        for indices in wanted:
            try:
                _, fast = Pick.load_bytes(bytes(broken), indices=indices, decode="seek")
            except NotSeekableError:
                noticed += 1
                continue
            _, reference = Pick.load_bytes(bytes(broken), indices=indices, decode="sequential")
            assert fast == reference
    assert noticed
