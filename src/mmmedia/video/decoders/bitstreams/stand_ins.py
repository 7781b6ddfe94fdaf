"""Which pictures of an H.264 span must be decoded for the sake of others, and what stands in for the rest.

A stored B-picture to which nothing that is decoded refers need not be decoded, but the decoder's store of
reference pictures must be as if it had been. So a stand-in takes its place: a picture of its number, its
place in display order and its commands, in which every macroblock is skipped. What needs what:

* a picture needs those in the active parts of its slices' lists, which go by picture numbers in P-slices and
  by display order in B-slices; direct prediction takes motion from the first of the second list, too;
* where pictures are kept for long, or a list can't be followed, all are decoded.

Source: ITU-T H.264, 7.3.3, 8.2.4 and 8.2.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders.bitstreams.bits import BitWriter, escape

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ListColumns:
    """One of the two reference lists of all slices: the active entries, and the n-th change of each slice.

    A change is an operation (3: none) and its value.
    """

    active: Ints
    operations: list[Ints]
    values: list[Ints]

    def changes(self, row: int) -> list[tuple[int, int]]:
        """The changes of one slice."""
        pairs = ((int(o[row]), int(v[row])) for o, v in zip(self.operations, self.values, strict=True))
        return [(operation, value) for operation, value in pairs if operation < 3]


@dataclass(frozen=True)
class Slices:
    """What all slices say of reference pictures, in columns; the slices of a packet stand together.

    `first` is the first slice of each packet; `is_b` tells the kind of those that have lists; `forgets` is
    the n-th command of each to forget a picture, by the difference of numbers less one (-1: none).
    """

    first: npt.NDArray[np.intp]
    is_b: Bools
    lists: tuple[ListColumns, ListColumns]
    forgets: list[Ints]

    def of(self, position: int) -> range:
        """The slices of one packet."""
        last = position + 1 == len(self.first)
        return range(int(self.first[position]), len(self.is_b) if last else int(self.first[position + 1]))

    def forgotten(self, position: int) -> list[int]:
        """What a packet's picture has forgotten."""
        row = self.first[position]
        return [int(column[row]) for column in self.forgets if column[row] >= 0]


def picture_parameter_set(number: int, sequence: int) -> bytes:
    """A picture parameter set for stand-ins: variable-length codes, no weights, deblocking as slices say."""
    writer = BitWriter()
    writer.ue(number)
    writer.ue(sequence)
    writer.u(2, 0)  # entropy coding mode, bottom field order
    for _ in range(3):  # slice groups, default references
        writer.ue(0)
    writer.u(3, 0)  # weighting
    for _ in range(3):  # quantisers: zero is coded the same signed
        writer.ue(0)
    writer.u(3, 0b100)
    return b"\x68" + escape(writer.finish())


@dataclass(frozen=True)
class H264References:
    """By decode position: what a picture is, its frame number and picture order count, and its slices.

    `stored_pictures` is how many the sequence keeps at a time; `marked` pictures bring commands, `for_long`
    ones other commands than to forget a picture. `picture_set` is a parameter set of our own, see
    `picture_parameter_set`; `importance` is nal_ref_idc, `order_lsb` what a slice header says of the order.
    """

    stored_pictures: int
    frame_num: list[int]
    order: list[int]
    kept: Bools
    reset: Bools
    intra: Bools
    has_b: Bools
    marked: Bools
    for_long: Bools
    slices: Slices
    picture_set: int
    length_size: int
    frame_num_bits: int
    order_bits: int
    macroblocks: int
    importance: Ints
    order_lsb: Ints

    @property
    def frame_numbers(self) -> int:
        """How many frame numbers there are."""
        return 1 << self.frame_num_bits

    def replaceable(self, start: int, stop: int, wanted: Sequence[int]) -> set[int]:
        """The positions of a span for which stand-ins will do, so that the wanted ones come out exactly."""
        stored_b = (np.flatnonzero((self.kept & self.has_b)[start:stop]) + start).tolist()
        if not stored_b or self.for_long[start:stop].any() or not self.reset[start]:
            return set()
        references = self._references(start, stop, set(wanted))
        if references is None:
            return set()
        # P- and I-pictures are decoded whether wanted or not, and decoded right.
        spared = set(stored_b).difference(wanted)
        for position in range(stop - 1, start - 1, -1):
            if position not in spared:
                spared.difference_update(references.get(position, ()))
        return spared

    def stand_in(self, position: int) -> bytes:
        """The payload of a packet that stands in for a picture."""
        writer = BitWriter()
        writer.ue(0)  # first macroblock
        writer.ue(0)  # a P-slice
        writer.ue(self.picture_set)
        writer.u(self.frame_num_bits, self.frame_num[position])
        writer.u(self.order_bits, int(self.order_lsb[position]))
        writer.u(1, 1)  # one reference
        writer.ue(0)
        writer.u(1, 0)  # in the initial order
        commands = self.slices.forgotten(position)
        writer.u(1, int(self.marked[position]))
        for difference in commands:
            writer.ue(1)
            writer.ue(difference)
        if self.marked[position]:
            writer.ue(0)
        writer.ue(0)  # quantiser
        writer.ue(1)  # no deblocking
        writer.ue(self.macroblocks)  # all of them skipped
        unit = bytes([int(self.importance[position]) << 5 | 1]) + escape(writer.finish())
        return len(unit).to_bytes(self.length_size, "big") + unit

    def _references(self, start: int, stop: int, wanted: set[int]) -> dict[int, list[int]] | None:
        """What each picture of a span may refer to; None where its lists can't be followed."""
        stored: list[int] = []
        references: dict[int, list[int]] = {}
        columns = (column[start:stop].tolist() for column in (self.kept, self.reset, self.intra))
        for position, (kept, reset, intra) in enumerate(zip(*columns, strict=True), start):
            if not kept and position not in wanted:
                continue
            if reset:
                stored = []
            if not intra:
                active = self._active(position, stored)
                if active is None:
                    return None
                references[position] = active
            if kept:
                after = self._store(position, stored)
                if after is None:
                    return None
                stored = after
        return references

    def _store(self, position: int, stored: list[int]) -> list[int] | None:
        """The pictures stored once the one at `position` is among them (8.2.5.3, 8.2.5.4.1)."""
        if self.marked[position]:
            numbers, current = self._numbers(position, stored), self.frame_num[position]
            for difference in self.slices.forgotten(position):
                if numbers.pop(current - difference - 1, None) is None:
                    return None
            stored = [picture for picture in stored if picture in numbers.values()]
        elif len(stored) >= self.stored_pictures:
            stored = stored[1:]
        return [*stored, position] if len(stored) < self.stored_pictures else None

    def _numbers(self, position: int, stored: list[int]) -> dict[int, int]:
        """The stored pictures by picture number, as the picture at `position` has it (8.2.4.1)."""
        current = self.frame_num[position]
        numbers = {}
        for picture in stored:
            number = self.frame_num[picture]
            numbers[number - self.frame_numbers if number > current else number] = picture
        return numbers

    def _active(self, position: int, stored: list[int]) -> list[int] | None:
        """The pictures in the active parts of a picture's lists; None where one can't be followed."""
        numbers = self._numbers(position, stored)
        if len(numbers) != len(stored):
            return None
        found: list[int] = []
        for row in self.slices.of(position):
            initial = self._initial(position, numbers, is_b=bool(self.slices.is_b[row]))
            for columns, ordered in zip(self.slices.lists, initial, strict=False):
                changed = self._changed(position, numbers, ordered, columns.changes(row))
                active = int(columns.active[row])
                if changed is None or active > len(changed):
                    return None
                found.extend(changed[:active])
        return found

    def _initial(self, position: int, numbers: dict[int, int], *, is_b: bool) -> list[list[int]]:
        """A slice's lists before changes (8.2.4.2.1, 8.2.4.2.3)."""
        if not is_b:
            return [[numbers[number] for number in sorted(numbers, reverse=True)]]
        order = self.order
        shown = sorted(numbers.values(), key=order.__getitem__)
        before = [picture for picture in shown if order[picture] < order[position]]
        after = shown[len(before) :]
        forward, backward = before[::-1] + after, after + before[::-1]
        if len(backward) > 1 and backward == forward:
            backward[:2] = backward[1::-1]
        return [forward, backward]

    def _changed(
        self, position: int, numbers: dict[int, int], ordered: list[int], changes: list[tuple[int, int]]
    ) -> list[int] | None:
        """A list as a slice changes it (8.2.4.3.1)."""
        current = predicted = self.frame_num[position]
        for place, (operation, value) in enumerate(changes):
            if operation > 1:
                return None
            predicted = (predicted + (value + 1) * (1 if operation else -1)) % self.frame_numbers
            number = predicted - self.frame_numbers if predicted > current else predicted
            if number not in numbers:
                return None
            picture = numbers[number]
            rest = [other for other in ordered[place:] if other != picture]
            ordered = [*ordered[:place], picture, *rest]
        return ordered
