"""HEVC's reference picture sets (ITU-T H.265, 7.3.7, 7.4.8, 8.3.2), and the parameter set that lists some."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders.bitstreams.bits import BitReader, BitTable, Bools, Ints, unescape
from mmmedia.video.decoders.bitstreams.structure import DAMAGED, CannotSeekError

_MOST = 16  # pictures of a set that are shown earlier, and that are shown later

# By how much the order count of each picture is another's, and whether the other refers to it: of pictures
# shown earlier, then of pictures shown later, the nearest first.
ReferenceSet = list[tuple[int, bool]]


@dataclass(frozen=True)
class Sequence:
    """What slices need of a sequence parameter set.

    Attributes:
        order_bits: how long a picture order count is.
        separate: whether colour planes are coded apart.
        sets: the reference picture sets that slices may name; None: pictures may be kept otherwise as well.
        colours: primaries, transfer and matrix, where they are told.
    """

    order_bits: int
    separate: int
    sets: list[ReferenceSet] | None
    colours: tuple[int, int, int] | None


def read_sequence(payload: bytes) -> Sequence:
    """Read a sequence parameter set."""
    reader = BitReader(unescape(payload[2:]))
    reader.u(4)
    sub_layers = reader.u(3)
    reader.u(1)
    reader.u(96)
    present = [(reader.u(1), reader.u(1)) for _ in range(sub_layers)]
    if sub_layers:
        reader.u(2 * (8 - sub_layers))
    for profile, level in present:
        reader.u(88 * profile + 8 * level)
    reader.ue()
    separate = reader.u(1) if reader.ue() == 3 else 0
    reader.ue()
    reader.ue()
    if reader.u(1):
        for _ in range(4):
            reader.ue()
    reader.ue()
    reader.ue()
    order_bits = 4 + reader.ue()
    if order_bits > 16:
        raise CannotSeekError(DAMAGED)
    for _ in range(1 if not reader.u(1) else sub_layers + 1):
        for _ in range(3):
            reader.ue()
    for _ in range(6):
        reader.ue()
    if reader.u(1) and reader.u(1):
        _pass_scaling_lists(reader)
    reader.u(2)
    if reader.u(1):
        reader.u(8)
        reader.ue()
        reader.ue()
        reader.u(1)
    sets: list[ReferenceSet] = []
    count = reader.ue()
    if count > 64:
        raise CannotSeekError(DAMAGED)
    for _ in range(count):
        sets.append(_read_set(reader, sets))
    has_long_term = reader.u(1)
    if has_long_term:
        for _ in range(min(reader.ue(), 32)):
            reader.u(order_bits + 1)
    reader.u(2)
    return Sequence(order_bits, separate, None if has_long_term else sets, _colours(reader))


def _colours(reader: BitReader) -> tuple[int, int, int] | None:
    """Read what is told of how pictures are to be shown (E.2.1), up to their colours."""
    if not reader.u(1):
        return None
    if reader.u(1) and reader.u(8) == 255:  # aspect ratio
        reader.u(32)
    if reader.u(1):  # overscan
        reader.u(1)
    if not reader.u(1):
        return None
    reader.u(4)
    return (reader.u(8), reader.u(8), reader.u(8)) if reader.u(1) else None


def _pass_scaling_lists(reader: BitReader) -> None:
    for size in range(4):
        for _ in range(0, 6, 3 if size == 3 else 1):
            if not reader.u(1):
                reader.ue()
                continue
            for _ in range(min(64, 1 << (4 + 2 * size)) + (size > 1)):
                reader.se()


def _read_set(reader: BitReader, before: list[ReferenceSet]) -> ReferenceSet:
    if before and reader.u(1):
        return _changed(reader, before[-1])
    counts = reader.ue(), reader.ue()
    if max(counts) > _MOST:
        raise CannotSeekError(DAMAGED)
    made: ReferenceSet = []
    for sign, count in zip((-1, 1), counts, strict=True):
        distance = 0
        for _ in range(count):
            distance += sign * (reader.ue() + 1)
            made.append((distance, bool(reader.u(1))))
    return made


def _changed(reader: BitReader, before: ReferenceSet) -> ReferenceSet:
    """Read a set that is told by the one before it (7-61, 7-62)."""
    sign = -1 if reader.u(1) else 1
    step = sign * (reader.ue() + 1)
    made: ReferenceSet = []
    for distance, _ in [*before, (0, False)]:
        used = bool(reader.u(1))
        if used or reader.u(1):
            made.append((distance + step, used))
    if len(made) > _MOST:
        raise CannotSeekError(DAMAGED)
    earlier = sorted((each for each in made if each[0] < 0), reverse=True)
    return earlier + sorted(each for each in made if each[0] > 0)


class Kept(NamedTuple):
    """The reference picture set of each picture, a row each: distances, 0 where there is none, and use."""

    distance: Ints
    used: Bools

    def of(self, rows: npt.NDArray[np.intp]) -> "Kept":
        """Return some rows."""
        return Kept(self.distance[rows], self.used[rows])


def read_kept(table: BitTable, where: Bools, sets: list[ReferenceSet]) -> Kept:
    """Read the sets of the slices in the mask: one of `sets`, told by one of them, or told in full."""
    shape = len(table), 2 * _MOST + 1
    kept = Kept(np.zeros(shape, np.int64), np.zeros(shape, np.bool_))
    is_named = table.flag(where)
    is_changed = table.flag(where & ~is_named & bool(sets))
    table.require(bool(sets) | ~is_named)
    bits = (len(sets) - 1).bit_length() if sets else 0
    number = table.u(bits, is_named) if bits else np.zeros(len(table), np.int64)
    number = np.where(is_changed, len(sets) - 1 - table.ue(is_changed), number)
    table.require((number >= 0) & (number < max(len(sets), 1)))
    is_back = table.flag(is_changed)
    step = np.where(is_back, -1, 1) * (table.ue(is_changed) + 1)
    for which, entries in enumerate(sets):
        rows, changed = is_named & (number == which), is_changed & (number == which)
        for column, (distance, used) in enumerate([*entries, (0, False)] if changed.any() else entries):
            is_used = table.flag(changed)
            stays = is_used | table.flag(changed & ~is_used)
            kept.distance[:, column] += np.where(rows, distance, 0) + np.where(stays, distance + step, 0)
            kept.used[:, column] |= (rows & used) | is_used
    own = where & ~is_named & ~is_changed
    column = 0
    counts = table.ue(own), table.ue(own)
    for sign, count in zip((-1, 1), counts, strict=True):
        table.require(count <= _MOST)
        last = np.zeros(len(table), np.int64)
        for entry in range(min(_MOST, int(count.max(initial=0)))):
            rows = own & (entry < count)
            last += sign * (table.ue(rows) + rows)
            kept.distance[:, column] += np.where(rows, last, 0)
            kept.used[:, column] |= table.flag(rows)
            column += 1
    return kept


def lack_references(counts: Ints, reset: Bools, kept: Kept, exempt: Bools) -> Bools:
    """Return which pictures refer to one that is not there, or that another let go.

    Args:
        counts: picture order counts in full.
        reset: the pictures before which all others are let go.
        kept: the reference picture set of each.
        exempt: those that may lack references.
    """
    lack = np.zeros(len(counts), np.bool_)
    kinds, kind = np.unique(np.concatenate([kept.distance, kept.used], axis=1), axis=0, return_inverse=True)
    half = kept.distance.shape[1]
    sets = [(row[:half][row[:half] != 0].tolist(), row[:half][row[half:] != 0].tolist()) for row in kinds]
    stored: set[int] = set()
    rows = zip(counts.tolist(), reset.tolist(), kind.ravel().tolist(), strict=True)
    for position, (count, is_reset, number) in enumerate(rows):
        if is_reset:
            stored.clear()
        distances, used = sets[number]
        lack[position] = any(count + distance not in stored for distance in used)
        stored.intersection_update([count + distance for distance in distances])
        stored.add(count)
    return lack & ~exempt
