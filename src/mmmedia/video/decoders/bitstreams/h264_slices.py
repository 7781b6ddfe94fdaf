"""H.264 slice headers, read whole (ITU-T H.264, 7.3.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmmedia.video.decoders.bitstreams.bits import BitTable, Bools, Ints
from mmmedia.video.decoders.bitstreams.h264_sets import Picture, Sequence
from mmmedia.video.decoders.bitstreams.stand_ins import ListColumns


@dataclass(frozen=True)
class Marking:
    """Whether a slice brings commands, any but to forget a picture, and those (or -1)."""

    marked: Bools
    for_long: Bools
    forgets: list[Ints]
    drops: Bools  # what has not been shown yet


@dataclass(frozen=True)
class SliceHeaders:
    """The fields of all slice headers of a stream, in columns."""

    first_macroblock: Ints
    frame_num: Ints
    order: Ints
    predicted: Bools
    bi: Bools
    lists: tuple[ListColumns, ListColumns]
    marking: Marking


def read_slices(
    table: BitTable, idr: Bools, kept: Bools, sequence: Sequence, pictures: dict[int, Picture]
) -> SliceHeaders:
    """Read whole slice headers (7.3.3), and refuse what a decoder would."""
    first_macroblock = table.ue()
    table.require(first_macroblock < sequence.macroblocks)
    kind = table.ue()
    table.require(kind <= 9)
    kind %= 5
    predicted, bi, intra = kind == 0, kind == 1, kind == 2
    table.require(predicted | bi | intra)
    table.require(intra, idr)
    number = np.minimum(table.ue(), 255)

    def of_picture(value: Callable[[Picture], int]) -> Ints:
        lookup = np.zeros(256, np.int64)
        for key, picture in pictures.items():
            lookup[key] = value(picture)
        return lookup[number]

    table.require(of_picture(lambda p: p.known) == 1)
    frame_num = table.u(sequence.frame_num_bits)
    table.require(table.ue(idr) <= 65535)
    order = table.u(sequence.order_bits) if sequence.order_type == 0 else np.zeros(len(table), np.int64)
    table.flag(bi)
    override = table.flag(predicted | bi)
    counts = []
    for which, used in enumerate((predicted | bi, bi)):
        given = table.ue(override & used) + 1
        count = np.where(override, given, of_picture(lambda p, which=which: p.references[which]))  # type: ignore[misc]
        counts.append(np.where(used, count, 0))
        table.require(counts[-1] <= 16)
    lists = (
        ListColumns(counts[0], *read_list_changes(table, predicted | bi, 1 << sequence.frame_num_bits)),
        ListColumns(counts[1], *read_list_changes(table, bi, 1 << sequence.frame_num_bits)),
    )
    weighted = (predicted & (of_picture(lambda p: p.weighted) == 1)) | (
        bi & (of_picture(lambda p: p.weighted_bi) == 1)
    )
    if weighted.any():
        _read_weights(table, weighted, counts, sequence.chroma)
    marking = _read_marking(table, idr, kept)
    cabac = (of_picture(lambda p: p.cabac) == 1) & ~intra
    table.require(table.ue(cabac) <= 2)
    quantiser = of_picture(lambda p: p.quantiser) + table.se()
    table.require((quantiser >= -6 * (sequence.bit_depth - 8)) & (quantiser <= 51))
    deblocking = of_picture(lambda p: p.deblocking) == 1
    mode = table.ue(deblocking)
    table.require(mode <= 2)
    for _ in range(2):
        table.require(abs(table.se(deblocking & (mode != 1))) <= 6)
    return SliceHeaders(first_macroblock, frame_num, order, predicted, bi, lists, marking)


def read_list_changes(table: BitTable, used: Bools, frame_numbers: int) -> tuple[list[Ints], list[Ints]]:
    """Changes to a list of reference pictures (7.3.3.1): the operations, 3 for none, and their values."""
    operations, values = [], []
    active = table.flag(used)
    for _ in range(17):
        operation = table.ue(active)
        table.require(operation <= 3, active)
        active = active & (operation < 3) & ~table.bad
        if not active.any():
            break
        operations.append(np.where(active, operation, 3))
        values.append(table.ue(active))
        # Beyond it a decoder drops the slice, and what stands in for it depends on its threads.
        table.require(values[-1] < frame_numbers, active & (operation < 2))
    table.require(~active)
    return operations, values


def _read_weights(table: BitTable, weighted: Bools, counts: list[Ints], chroma: bool) -> None:
    table.require(table.ue(weighted) <= 7)
    if chroma:
        table.require(table.ue(weighted) <= 7)
    for count in counts:
        for number in range(int(np.minimum(count, 16).max(initial=0))):
            present = weighted & (count > number)
            luma = table.flag(present)
            for _ in range(2):
                table.require(abs(table.se(luma)) <= 128)
            if chroma:
                tinted = table.flag(present)
                for _ in range(4):
                    table.require(abs(table.se(tinted)) <= 128)


def _read_marking(table: BitTable, idr: Bools, kept: Bools) -> Marking:
    """Reference picture marking (7.3.3.3)."""
    orders = table.u(2, idr)
    drops: Bools = orders & 2 == 2
    for_long: Bools = orders & 1 == 1
    active = table.flag(kept & ~idr)
    marked = active
    forgets = []
    for _ in range(34):
        operation = table.ue(active)
        # Operation 5 is a reset in disguise.
        table.require((operation <= 6) & (operation != 5), active)
        active = active & (operation != 0) & ~table.bad
        if not active.any():
            break
        value = table.ue(active)
        table.ue(active & (operation == 3))
        forgets.append(np.where(active & (operation == 1), value, -1))
        for_long = for_long | (active & (operation > 1))
    table.require(~active)
    return Marking(marked, for_long, forgets, drops)
