"""The structure of an H.264 stream (ITU-T H.264, 7.4.3, 8.2.1, D.1.8)."""

from collections.abc import Iterator

import numpy as np

from mmmedia.video.decoders.bitstreams.bits import BitReader, Bools, Ints, unescape
from mmmedia.video.decoders.bitstreams.h264_sets import (
    IDR,
    PPS,
    SEI,
    SPS,
    Sequence,
    read_avcc,
    read_picture,
    read_sequence,
    with_picture_set,
)
from mmmedia.video.decoders.bitstreams.h264_slices import read_slices
from mmmedia.video.decoders.bitstreams.nal_units import (
    Bytes,
    Units,
    first_of_each_packet,
    order_counts,
    ranks_by_order,
    read_headers,
    same_parameter_sets,
    walk_units,
)
from mmmedia.video.decoders.bitstreams.stand_ins import H264References, Slices, picture_parameter_set
from mmmedia.video.decoders.bitstreams.structure import (
    DAMAGED,
    INTERLACED,
    UNSUPPORTED,
    CannotSeekError,
    Structure,
)
from mmmedia.video.decoders.packets.index import PacketIndex

_UNITS = frozenset([1, IDR, SEI, SPS, PPS, 9, 12])
_PICTURE_SETS = 256
_PICTURE_TIMING, _RECOVERY_POINT = 1, 6


def read_h264(index: PacketIndex) -> Structure:
    """Return the structure of an H.264 stream.

    Raises:
        CannotSeekError: its headers don't fit.
        HeaderEndError, IndexError: one ends too early.
    """
    length_size, parameter_sets = read_avcc(index.extradata)
    sequences = [s for s in parameter_sets if s[0] & 31 == SPS]
    if len(sequences) != 1:
        raise CannotSeekError(UNSUPPORTED)
    sequence = read_sequence(sequences[0])
    pictures = dict(read_picture(p) for p in parameter_sets if p[0] & 31 == PPS)

    data = np.frombuffer(index.data, np.uint8)
    units = walk_units(index, data, length_size)
    header = data[units.start]
    kind = header & 31
    if (header & 0x80).any() or not np.isin(kind, list(_UNITS)).all():
        raise CannotSeekError(UNSUPPORTED)
    same_parameter_sets(data, units.of(np.isin(kind, [SPS, PPS])), set(parameter_sets))

    slices = units.of(np.isin(kind, [1, IDR]))
    header = data[slices.start]
    is_idr, reference = header & 31 == IDR, header >> 5 & 3
    first = first_of_each_packet(slices, len(index))
    fields = read_headers(
        data,
        slices.start + 1,
        slices.length - 1,
        lambda table: read_slices(table, is_idr, reference > 0, sequence, pictures),
    )
    # All slices of a packet must be of one picture, in order.
    own_first = first[np.searchsorted(slices.packet[first], slices.packet)]
    leading = np.zeros(len(is_idr), np.bool_)
    leading[first] = True
    same = (
        (fields.frame_num == fields.frame_num[own_first])
        & (fields.order == fields.order[own_first])
        & (is_idr == is_idr[own_first])
        & ((reference > 0) == (reference[own_first] > 0))
    )
    rising = np.concatenate([[True], np.diff(fields.first_macroblock) > 0]) | leading
    if not (same & rising & ((fields.first_macroblock == 0) == leading)).all():
        raise CannotSeekError(DAMAGED)

    idr, kept = is_idr[first], reference[first] > 0
    _check_frame_numbers(fields.frame_num[first], idr, kept, sequence.frame_num_bits)
    if sequence.order_type == 0:
        order = order_counts(fields.order[first], sequence.order_bits, kept, idr)
    else:
        order = np.arange(len(index))
    ranks = ranks_by_order(index, order, idr)

    marking = fields.marking
    has_p, has_b, marked, for_long = (
        np.bitwise_or.reduceat(column, first)
        for column in (fields.predicted, fields.bi, marking.marked, marking.for_long)
    )
    intra_only = ~(has_p | has_b)
    access = idr & index.key
    # An IDR picture may order that what has not been shown yet never is.
    alone = marking.drops[first]
    messages = units.of(kind == SEI)
    for packet in np.flatnonzero(index.key & ~idr & intra_only):
        own = messages.of(messages.packet == packet)
        access[packet] = any(
            _recovers_at_once(data[start : start + length].tobytes())
            for start, length in zip(own.start.tolist(), own.length.tolist(), strict=True)
        )
    alone = alone | ~idr
    if sequence.says_fields:
        _check_structures(data, messages, sequence)
    free = next((number for number in reversed(range(_PICTURE_SETS)) if number not in pictures), None)
    if sequence.order_type != 0 or free is None:
        return Structure(access, ~kept, ranks, alone)
    references = H264References(
        stored_pictures=max(1, sequence.stored_pictures),
        frame_num=fields.frame_num[first].tolist(),
        order=order.tolist(),
        kept=kept,
        reset=idr,
        intra=intra_only,
        has_b=has_b,
        marked=marked,
        for_long=for_long,
        slices=Slices(first, fields.bi, fields.lists, marking.forgets),
        picture_set=free,
        length_size=length_size,
        frame_num_bits=sequence.frame_num_bits,
        order_bits=sequence.order_bits,
        macroblocks=sequence.macroblocks,
        importance=reference[first],
        order_lsb=fields.order[first],
    )
    extra = picture_parameter_set(free, sequence.number)
    return Structure(
        access,
        ~kept,
        ranks,
        alone,
        references=references,
        extradata=with_picture_set(index.extradata, extra),
    )


def _check_frame_numbers(frame_num: Ints, idr: Bools, kept: Bools, bits: int) -> None:
    """Every picture's frame number follows that of the reference picture before it (7.4.3)."""
    last = np.maximum.accumulate(np.where(kept, np.arange(len(kept)), 0))
    before = np.concatenate([[0], last[:-1]])
    expected = np.where(idr, 0, (frame_num[before] + 1) % (1 << bits))
    if not (frame_num == expected)[1:].all():
        raise CannotSeekError(DAMAGED)


def _check_structures(data: Bytes, messages: Units, sequence: Sequence) -> None:
    """Refuse pictures that messages call fields, or as good as (D.1.3)."""
    for start, length in zip(messages.start.tolist(), messages.length.tolist(), strict=True):
        for kind, body in _messages(data[start : start + length].tobytes()):
            if kind != _PICTURE_TIMING:
                continue
            reader = BitReader(body)
            reader.u(sequence.delay_bits)
            # A frame, shown once, twice or three times; and no clock, which would call it interlaced or not.
            if reader.u(4) not in (0, 7, 8) or reader.u(1):
                raise CannotSeekError(INTERLACED)


def _recovers_at_once(message: bytes) -> bool:
    """Whether an SEI holds a recovery point that is exact from its own picture on (D.1.8)."""
    for kind, body in _messages(message):
        if kind == _RECOVERY_POINT:
            reader = BitReader(body)
            return reader.ue() == 0 and reader.u(1) == 1 and reader.u(1) == 0
    return False


def _messages(unit: bytes) -> Iterator[tuple[int, bytes]]:
    """The kinds and contents of the messages in an SEI (7.3.2.3.1)."""
    body = unescape(unit[1:])
    at = 0
    while at + 2 < len(body):
        kind = size = 0
        while at < len(body) and body[at] == 255:
            kind, at = kind + 255, at + 1
        kind, at = kind + body[at], at + 1
        while at < len(body) and body[at] == 255:
            size, at = size + 255, at + 1
        size, at = size + body[at], at + 1
        yield kind, body[at : at + size]
        at += size
