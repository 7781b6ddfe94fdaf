"""What the packets of a video stream are to each other, read off their headers without decoding.

For every codec of the fast path: from which packets decoding may start, which no other refers to, and that
each packet will give exactly one frame, in the order of the timestamps. A header that does not fit, such as
a damaged one, refuses the stream: a decoder might leave that frame out, and every later index would shift.

Sources: ITU-T H.264 and H.265 (7.3, 8.2.1, 8.3.1), the VP9 bitstream specification (6.1, 7.2,
annex B), the AV1 bitstream specification (5.3 to 5.9), ISO/IEC 14496-2 (6.2).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mmmedia.video.decoders.bits import BitReader, BitTable, Bools, HeaderEndError, Ints, unescape
from mmmedia.video.decoders.references import (
    H264References,
    ListColumns,
    Slices,
    StandIns,
    picture_parameter_set,
)

if TYPE_CHECKING:
    from mmmedia.video.decoders.index import PacketIndex

Bytes = npt.NDArray[np.uint8]
T = TypeVar("T")

PARAMETERS_CHANGE = "parameters change midway"
DAMAGED = "damaged or unusual headers"
ORDER = "display order differs from timestamps"
HIDDEN = "invisible frames"
INTERLACED = "interlaced"
UNSUPPORTED = "unusual coding tools"


class CannotSeekError(Exception):
    """The stream may not be decoded by seeking; the argument is the reason."""


@dataclass(frozen=True)
class Structure:
    """By decode position: may decoding start here, and can this be left out unless it is wanted.

    For H.264 also what refers to what, by which more can be spared, and the parameter sets that takes.
    """

    access_points: Bools
    disposable: Bools
    references: H264References | None = None
    extradata: bytes | None = None


def analyse(index: "PacketIndex") -> Structure:
    """Return the structure of a stream.

    Raises:
        CannotSeekError: the codec is not one of the fast path's, or the headers do not fit.
    """
    reader = _READERS.get(index.codec)
    if reader is None:
        raise CannotSeekError("codec")
    try:
        return reader(index)
    except (HeaderEndError, IndexError):
        raise CannotSeekError(DAMAGED) from None


# ------------------------------------------------------------------------------- NAL units
_MAX_UNITS = 600  # of one packet
_HEADER_BYTES = (32, 192)  # of a slice header: what nearly all take, and what any takes


@dataclass(frozen=True)
class _Units:
    """NAL units: the packet each belongs to, where its bytes begin, and how many they are."""

    packet: Ints
    start: Ints
    length: Ints

    def of(self, which: Bools) -> "_Units":
        return _Units(self.packet[which], self.start[which], self.length[which])


def _units(index: "PacketIndex", data: Bytes, length_size: int) -> _Units:
    """Walk the length-prefixed NAL units of all packets side by side."""
    packet = np.arange(len(index))
    at, end = index.offset.copy(), index.offset + index.size
    found: list[tuple[Ints, Ints, Ints]] = []
    while len(packet):
        if len(found) >= _MAX_UNITS or (at + length_size > end).any():
            raise CannotSeekError(DAMAGED)
        length = np.zeros(len(packet), np.int64)
        for byte in range(length_size):
            length = length << 8 | data[at + byte]
        start = at + length_size
        if (length < 2).any() or (start + length > end).any():
            raise CannotSeekError(DAMAGED)
        found.append((packet, start, length))
        at = start + length
        alive = at < end
        packet, at, end = packet[alive], at[alive], end[alive]
    packets, starts, lengths = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(starts, kind="stable")
    order = order[np.argsort(packets[order], kind="stable")]
    return _Units(packets[order], starts[order], lengths[order])


def _read_headers(data: Bytes, start: Ints, length: Ints, read: Callable[[BitTable], T]) -> T:
    """Read the first bytes of NAL units, behind their own header, as rows of bits; any bad row refuses."""
    for width in _HEADER_BYTES:
        table = BitTable(_first_bytes(data, start, length, width))
        fields = read(table)
        if not table.bad.any():
            return fields
        if not table.past_end.any():
            break
    raise CannotSeekError(DAMAGED)


def _first_bytes(data: Bytes, start: Ints, length: Ints, width: int) -> Bytes:
    """The first bytes of NAL units without emulation prevention, and zeros behind the end of a short one."""
    if len(data) < width:
        data = np.pad(data, (0, width - len(data)))
    begin = np.minimum(start, len(data) - width)
    rows: Bytes = sliding_window_view(data, width)[begin]
    for row in np.flatnonzero(begin < start):  # at the very end of the file
        rows[row] = np.pad(data[start[row] :], (0, width))[:width]
    rows[np.arange(width) >= length[:, None]] = 0
    escapes = (rows[:, :-2] | rows[:, 1:-1] == 0) & (rows[:, 2:] == 3)
    escaped = escapes.any(axis=1)
    kept = np.pad(~escapes[escaped], ((0, 0), (2, 0)), constant_values=True)
    moved = np.zeros_like(rows[escaped])
    moved[np.nonzero(kept)[0], (np.cumsum(kept, axis=1) - 1)[kept]] = rows[escaped][kept]
    rows[escaped] = moved
    return rows


def _parameter_set(extradata: bytes, at: int) -> tuple[bytes, int]:
    """A parameter set of a configuration record, behind its length, and where the next begins."""
    stop = at + 2 + int.from_bytes(extradata[at : at + 2], "big")
    payload = extradata[at + 2 : stop]
    if len(payload) != stop - at - 2 or len(payload) < 4:
        raise CannotSeekError(DAMAGED)
    return payload.rstrip(b"\0"), stop


def _same_parameter_sets(data: Bytes, units: _Units, known: set[bytes]) -> None:
    """Parameter sets within the stream must be those that the container gave."""
    for start, length in zip(units.start.tolist(), units.length.tolist(), strict=True):
        if data[start : start + length].tobytes().rstrip(b"\0") not in known:
            raise CannotSeekError(PARAMETERS_CHANGE)


def _first_of_each_packet(units: _Units, count: int) -> npt.NDArray[np.intp]:
    """The position of each packet's first unit; every packet must have one."""
    packets, first = np.unique(units.packet, return_index=True)
    if len(packets) != count:
        raise CannotSeekError(DAMAGED)
    return first


def _order_counts(lsb: Ints, bits: int, anchor: Bools, reset: Bools) -> Ints:
    """Picture order counts in full, from their least significant bits (H.264 8.2.1.1, HEVC 8.3.1).

    Each is the one nearest to that of the picture which anchors it, the last one before; pictures of the
    mask `reset` start afresh.
    """
    half, whole = 1 << (bits - 1), 1 << bits
    position = np.arange(len(lsb))
    last = np.maximum.accumulate(np.where(anchor | reset, position, 0))
    before = np.concatenate([[0], last[:-1]])
    step = (lsb - lsb[before] + half - 1) % whole - (half - 1)
    step = np.where(reset, 0, step)
    # Sum up the steps from anchor to anchor, since the last reset.
    path = np.cumsum(np.where(anchor & ~reset, step, 0))
    segment = np.maximum.accumulate(np.where(reset, position, 0))
    base = lsb[segment] + path - path[segment]
    counts: Ints = np.where(anchor | reset, base, base + step)
    return counts


def _in_order(index: "PacketIndex", order: Ints, reset: Bools) -> None:
    """Timestamps must rise as the order counts do, from reset to reset."""
    ranked = np.lexsort((order, np.cumsum(reset)))
    segment, counts = np.cumsum(reset)[ranked], order[ranked]
    unique = (np.diff(segment) > 0) | (np.diff(counts) > 0)
    if not unique.all() or (np.diff(index.pts[ranked]) <= 0).any():
        raise CannotSeekError(ORDER)


# ------------------------------------------------------------------------------------ H.264
_IDR, _SEI, _SPS, _PPS = 5, 6, 7, 8
_H264_UNITS = frozenset([1, _IDR, _SEI, _SPS, _PPS, 9, 12])
_PICTURE_SETS = 256
_HIGH_PROFILES = frozenset([44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244])


@dataclass(frozen=True)
class _H264Sequence:
    frame_num_bits: int
    order_type: int
    order_bits: int
    chroma: bool
    bit_depth: int
    macroblocks: int
    says_fields: bool  # messages may call a picture interlaced
    stored_pictures: int
    number: int


@dataclass(frozen=True)
class _H264Picture:
    """Flags of a picture parameter set, in the order of the table that is made of them."""

    known: int
    cabac: int
    weighted: int
    weighted_bi: int
    references: tuple[int, int]
    quantiser: int
    deblocking: int


def _h264(index: "PacketIndex") -> Structure:
    length_size, parameter_sets = _avcc(index.extradata)
    sequences = [s for s in parameter_sets if s[0] & 31 == _SPS]
    if len(sequences) != 1:
        raise CannotSeekError(UNSUPPORTED)
    sequence = _h264_sequence(sequences[0])
    pictures = dict(_h264_picture(p) for p in parameter_sets if p[0] & 31 == _PPS)

    data = np.frombuffer(index.data, np.uint8)
    units = _units(index, data, length_size)
    header = data[units.start]
    kind = header & 31
    if (header & 0x80).any() or not np.isin(kind, list(_H264_UNITS)).all():
        raise CannotSeekError(UNSUPPORTED)
    _same_parameter_sets(data, units.of(np.isin(kind, [_SPS, _PPS])), set(parameter_sets))

    slices = units.of(np.isin(kind, [1, _IDR]))
    header = data[slices.start]
    is_idr, reference = header & 31 == _IDR, header >> 5 & 3
    first = _first_of_each_packet(slices, len(index))
    fields = _read_headers(
        data,
        slices.start + 1,
        slices.length - 1,
        lambda table: _h264_slices(table, is_idr, reference > 0, sequence, pictures),
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
    _h264_frame_numbers(fields.frame_num[first], idr, kept, sequence.frame_num_bits)
    if sequence.order_type == 0:
        order = _order_counts(fields.order[first], sequence.order_bits, kept, idr)
    else:
        order = np.arange(len(index))
    _in_order(index, order, idr)

    marking = fields.marking
    has_p, has_b, marked, for_long = (
        np.bitwise_or.reduceat(column, first)
        for column in (fields.predicted, fields.bi, marking.marked, marking.for_long)
    )
    intra_only = ~(has_p | has_b)
    access = idr & index.key
    messages = units.of(kind == _SEI)
    for packet in np.flatnonzero(index.key & ~idr & intra_only):
        own = messages.of(messages.packet == packet)
        access[packet] = any(
            _recovers_at_once(data[start : start + length].tobytes())
            for start, length in zip(own.start.tolist(), own.length.tolist(), strict=True)
        )
    free = next((number for number in reversed(range(_PICTURE_SETS)) if number not in pictures), None)
    if sequence.order_type != 0 or free is None:
        return Structure(access, ~kept)
    references = H264References(
        stored_pictures=max(1, sequence.stored_pictures),
        frame_numbers=1 << sequence.frame_num_bits,
        frame_num=fields.frame_num[first],
        order=order,
        kept=kept,
        reset=idr,
        intra=intra_only,
        has_b=has_b,
        marked=marked,
        for_long=for_long,
        slices=Slices(first, fields.bi, fields.lists, marking.forgets),
        stand_ins=StandIns(
            free,
            length_size,
            sequence.frame_num_bits,
            sequence.order_bits,
            sequence.macroblocks,
            reference[first],
            fields.order[first],
        ),
    )
    extra = picture_parameter_set(free, sequence.number)
    return Structure(access, ~kept, references, _with_picture_set(index.extradata, extra))


def _with_picture_set(extradata: bytes, payload: bytes) -> bytes:
    """An AVCDecoderConfigurationRecord with one more picture parameter set."""
    at = 6
    for _ in range(extradata[5] & 31):
        at += 2 + int.from_bytes(extradata[at : at + 2], "big")
    inserted = len(payload).to_bytes(2, "big") + payload
    return extradata[:at] + bytes([extradata[at] + 1]) + inserted + extradata[at + 1 :]


def _avcc(extradata: bytes) -> tuple[int, list[bytes]]:
    """The length of a length prefix, and the parameter sets, of an AVCDecoderConfigurationRecord."""
    if len(extradata) < 7 or extradata[0] != 1:
        raise CannotSeekError(UNSUPPORTED)
    sets: list[bytes] = []
    at = 5
    for mask in (31, 255):
        count = extradata[at] & mask
        at += 1
        for _ in range(count):
            payload, at = _parameter_set(extradata, at)
            sets.append(payload)
    return (extradata[4] & 3) + 1, sets


def _h264_sequence(payload: bytes) -> _H264Sequence:
    profile = payload[1]
    reader = BitReader(unescape(payload[4:]))
    number = reader.ue()
    chroma_format, separate, bit_depth = 1, 0, 8
    if profile in _HIGH_PROFILES:
        chroma_format = reader.ue()
        separate = reader.u(1) if chroma_format == 3 else 0
        bit_depth = 8 + reader.ue()
        reader.ue()
        reader.u(1)
        if reader.u(1):
            for matrix in range(12 if chroma_format == 3 else 8):
                if reader.u(1):
                    _skip_scaling_list(reader, 16 if matrix < 6 else 64)
    frame_num_bits = 4 + reader.ue()
    order_type = reader.ue()
    order_bits = 4 + reader.ue() if order_type == 0 else 0
    stored_pictures, gaps = reader.ue(), reader.u(1)
    width, height = reader.ue() + 1, reader.ue() + 1
    if not reader.u(1):
        raise CannotSeekError(INTERLACED)
    if order_type == 1 or separate or gaps or max(frame_num_bits, order_bits) > 16:
        raise CannotSeekError(UNSUPPORTED)
    fields = _says_fields(reader)
    return _H264Sequence(
        frame_num_bits,
        order_type,
        order_bits,
        chroma_format != 0,
        bit_depth,
        width * height,
        fields,
        stored_pictures,
        number,
    )


def _says_fields(reader: BitReader) -> bool:
    """Whether picture structures are told in messages: a flag of the usability information (E.1.1)."""
    reader.u(1)
    if reader.u(1):  # cropping
        for _ in range(4):
            reader.ue()
    if not reader.u(1):
        return False
    if reader.u(1) and reader.u(8) == 255:  # aspect ratio
        reader.u(32)
    if reader.u(1):  # overscan
        reader.u(1)
    if reader.u(1):  # video signal
        reader.u(4)
        if reader.u(1):
            reader.u(24)
    if reader.u(1):  # chroma location
        reader.ue()
        reader.ue()
    if reader.u(1):  # timing
        reader.u(65)
    buffered = False
    for _ in range(2):
        if reader.u(1):
            buffered = True
            count = reader.ue() + 1
            reader.u(8)
            for _ in range(min(count, 32)):
                reader.ue()
                reader.ue()
                reader.u(1)
            reader.u(20)
    if buffered:
        reader.u(1)
    return reader.u(1) == 1


# Where an H.264 configuration begins: in MP4, and in Matroska (a codec's private data, with its length).
_MATROSKA_AVC = b"V_MPEG4/ISO/AVC"
_AVC_RECORD = re.compile(rb"avcC|.{0,200}?\x63\xa2(?:[\x80-\xff]|[\x40-\x7f].)", re.DOTALL)


def is_progressive_h264(data: bytes) -> bool:
    """Whether every H.264 configuration in a file says that its pictures are frames, not fields.

    A quick look at the bytes; False where it finds none, or can't tell.
    """
    found = False
    for name in (b"avcC", _MATROSKA_AVC):
        at = data.find(name)
        while at >= 0:
            after = at + len(name)
            record = _AVC_RECORD.match(data, at if name == b"avcC" else after)
            if record is None or not _is_progressive(data[record.end() : record.end() + 4096]):
                return False
            found = True
            at = data.find(name, after)
    return found


def _is_progressive(record: bytes) -> bool:
    try:
        _, parameter_sets = _avcc(record)
        return not any(_h264_sequence(p).says_fields for p in parameter_sets if p[0] & 31 == _SPS)
    except (CannotSeekError, HeaderEndError, IndexError):
        return False


def _skip_scaling_list(reader: BitReader, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + reader.se()) % 256
        last = following or last


def _h264_picture(payload: bytes) -> tuple[int, _H264Picture]:
    reader = BitReader(unescape(payload[1:]))
    number = reader.ue()
    reader.ue()
    cabac, bottom_order = reader.u(1), reader.u(1)
    if reader.ue() or bottom_order:
        raise CannotSeekError(UNSUPPORTED)  # slice groups, or fields
    references = reader.ue() + 1, reader.ue() + 1
    weighted, weighted_bi = reader.u(1), reader.u(2)
    quantiser = 26 + reader.se()
    reader.se()
    reader.se()
    deblocking = reader.u(1)
    reader.u(1)
    if reader.u(1) or number > 255:
        raise CannotSeekError(UNSUPPORTED)  # redundant pictures
    return number, _H264Picture(1, cabac, weighted, weighted_bi, references, quantiser, deblocking)


@dataclass(frozen=True)
class _H264Marking:
    """Whether a slice brings commands, any but to forget a picture, and those (or -1)."""

    marked: Bools
    for_long: Bools
    forgets: list[Ints]


@dataclass(frozen=True)
class _H264Slices:
    first_macroblock: Ints
    frame_num: Ints
    order: Ints
    predicted: Bools
    bi: Bools
    lists: tuple[ListColumns, ListColumns]
    marking: _H264Marking


def _h264_slices(
    table: BitTable, idr: Bools, kept: Bools, sequence: _H264Sequence, pictures: dict[int, _H264Picture]
) -> _H264Slices:
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

    def of_picture(value: Callable[[_H264Picture], int]) -> Ints:
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
        ListColumns(counts[0], *_h264_list_changes(table, predicted | bi, 1 << sequence.frame_num_bits)),
        ListColumns(counts[1], *_h264_list_changes(table, bi, 1 << sequence.frame_num_bits)),
    )
    weighted = (predicted & (of_picture(lambda p: p.weighted) == 1)) | (
        bi & (of_picture(lambda p: p.weighted_bi) == 1)
    )
    if weighted.any():
        _h264_weights(table, weighted, counts, sequence.chroma)
    marking = _h264_marking(table, idr, kept)
    cabac = (of_picture(lambda p: p.cabac) == 1) & ~intra
    table.require(table.ue(cabac) <= 2)
    quantiser = of_picture(lambda p: p.quantiser) + table.se()
    table.require((quantiser >= -6 * (sequence.bit_depth - 8)) & (quantiser <= 51))
    deblocking = of_picture(lambda p: p.deblocking) == 1
    mode = table.ue(deblocking)
    table.require(mode <= 2)
    for _ in range(2):
        table.require(abs(table.se(deblocking & (mode != 1))) <= 6)
    return _H264Slices(first_macroblock, frame_num, order, predicted, bi, lists, marking)


def _h264_list_changes(table: BitTable, used: Bools, frame_numbers: int) -> tuple[list[Ints], list[Ints]]:
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


def _h264_weights(table: BitTable, weighted: Bools, counts: list[Ints], chroma: bool) -> None:
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


def _h264_marking(table: BitTable, idr: Bools, kept: Bools) -> _H264Marking:
    """Reference picture marking (7.3.3.3)."""
    for_long: Bools = table.u(2, idr) & 1 == 1
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
    return _H264Marking(marked, for_long, forgets)


def _h264_frame_numbers(frame_num: Ints, idr: Bools, kept: Bools, bits: int) -> None:
    """Every picture's frame number follows that of the reference picture before it (7.4.3)."""
    last = np.maximum.accumulate(np.where(kept, np.arange(len(kept)), 0))
    before = np.concatenate([[0], last[:-1]])
    expected = np.where(idr, 0, (frame_num[before] + 1) % (1 << bits))
    if not (frame_num == expected)[1:].all():
        raise CannotSeekError(DAMAGED)


def _recovers_at_once(message: bytes) -> bool:
    """Whether an SEI holds a recovery point that is exact from its own picture on (D.1.8)."""
    body = unescape(message[1:])
    at = 0
    while at + 2 < len(body):
        kind = size = 0
        while at < len(body) and body[at] == 255:
            kind, at = kind + 255, at + 1
        kind, at = kind + body[at], at + 1
        while at < len(body) and body[at] == 255:
            size, at = size + 255, at + 1
        size, at = size + body[at], at + 1
        if kind == 6:
            reader = BitReader(body[at : at + size])
            return reader.ue() == 0 and reader.u(1) == 1 and reader.u(1) == 0
        at += size
    return False


# ------------------------------------------------------------------------------------- HEVC
_HEVC_PARAMETERS = (32, 33, 34)
_HEVC_UNITS = frozenset([*range(10), 19, 20, 21, *_HEVC_PARAMETERS, 35, 38, 39, 40])


def _hevc(index: "PacketIndex") -> Structure:
    length_size, parameter_sets = _hvcc(index.extradata)
    sequences = [s for s in parameter_sets if s[0] >> 1 == 33]
    pictures = dict(_hevc_picture(p) for p in parameter_sets if p[0] >> 1 == 34)
    if len(sequences) != 1 or not pictures or len({p.layout for p in pictures.values()}) != 1:
        raise CannotSeekError(UNSUPPORTED)
    order_bits, separate = _hevc_sequence(sequences[0])
    layout = next(iter(pictures.values()))

    data = np.frombuffer(index.data, np.uint8)
    units = _units(index, data, length_size)
    head, tail = data[units.start], data[units.start + 1]
    if (head & 0x81).any() or (tail >> 3).any() or not (tail & 7).all():
        raise CannotSeekError(UNSUPPORTED)
    if not np.isin(head >> 1, list(_HEVC_UNITS)).all():
        raise CannotSeekError(UNSUPPORTED)
    _same_parameter_sets(data, units.of(np.isin(head >> 1, _HEVC_PARAMETERS)), set(parameter_sets))

    slices = units.of(head >> 1 < 32)
    kind: Ints = (data[slices.start] >> 1).astype(np.int64)
    level: Ints = (data[slices.start + 1] & 7).astype(np.int64)
    first = _first_of_each_packet(slices, len(index))
    leading = np.zeros(len(kind), np.bool_)
    leading[first] = True
    own_first = first[np.searchsorted(slices.packet[first], slices.packet)]
    is_idr = (kind == 19) | (kind == 20)

    def read(table: BitTable) -> Ints:
        random_access = kind >= 16
        table.require(table.flag() == leading)
        table.require((kind == kind[own_first]) & (level == level[own_first]))
        table.flag(random_access)
        table.require(np.isin(table.ue(), list(pictures)))
        if layout.extra_bits:
            table.u(layout.extra_bits, leading)
        slice_kind = table.ue(leading)
        table.require(slice_kind <= 2)
        table.require(slice_kind == 2, leading & random_access)
        if layout.output_flag:
            table.require(table.flag(leading), leading)
        if separate:
            table.u(2, leading)
        return table.u(order_bits, leading & ~is_idr)

    order = _read_headers(data, slices.start + 2, slices.length - 2, read)[first]
    kind, level, reset = kind[first], level[first], is_idr[first]
    reset[0] = True
    # Not anchored on: sub-layer non-reference pictures, leading pictures, higher sub-layers.
    unreferenced = (kind < 16) & (kind % 2 == 0)
    anchor = (level == 1) & ~unreferenced & ~((kind >= 6) & (kind <= 9))
    _in_order(index, _order_counts(order, order_bits, anchor, reset), reset)
    # What its own sub-layer does not refer to, a higher one still may.
    return Structure((kind >= 16) & index.key, unreferenced & (level == level.max()))


def _hvcc(extradata: bytes) -> tuple[int, list[bytes]]:
    """The length of a length prefix, and the parameter sets, of an HEVCDecoderConfigurationRecord."""
    if len(extradata) < 23 or extradata[0] != 1:
        raise CannotSeekError(UNSUPPORTED)
    sets: list[bytes] = []
    at = 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            payload, at = _parameter_set(extradata, at)
            sets.append(payload)
    return (extradata[21] & 3) + 1, sets


def _hevc_sequence(payload: bytes) -> tuple[int, int]:
    """Bits of a picture order count, and whether colour planes are coded apart."""
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
    return order_bits, separate


@dataclass(frozen=True)
class _HevcPicture:
    output_flag: int
    extra_bits: int

    @property
    def layout(self) -> tuple[int, int]:
        return self.output_flag, self.extra_bits


def _hevc_picture(payload: bytes) -> tuple[int, _HevcPicture]:
    reader = BitReader(unescape(payload[2:]))
    number = reader.ue()
    reader.ue()
    reader.u(1)
    return number, _HevcPicture(reader.u(1), reader.u(3))


# -------------------------------------------------------------------------------------- VP9
def _vp9(index: "PacketIndex") -> Structure:
    access = np.zeros(len(index), np.bool_)
    for position in range(len(index)):
        start, size = int(index.offset[position]), int(index.size[position])
        frames = _superframe(index.data, start, size)
        kinds = [_vp9_frame(index.data[at : at + min(length, 8)]) for at, length in frames]
        if [shown for shown, _ in kinds].count(True) != 1 or not kinds[-1][0]:
            raise CannotSeekError(HIDDEN)
        is_key = kinds[0][1]
        if is_key != bool(index.key[position]):
            raise CannotSeekError(DAMAGED)
        access[position] = is_key and len(kinds) == 1
    _in_decode_order(index)
    return Structure(access, np.zeros(len(index), np.bool_))


def _superframe(data: bytes, start: int, size: int) -> list[tuple[int, int]]:
    """Where the frames of a packet stand (annex B)."""
    marker = data[start + size - 1]
    if marker & 0xE0 == 0xC0:
        count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index_size = 2 + count * width
        if size >= index_size and data[start + size - index_size] == marker:
            at = start + size - index_size + 1
            frames = []
            for _ in range(count):
                length = int.from_bytes(data[at : at + width], "little")
                frames.append((start, length))
                start, at = start + length, at + width
            if any(length == 0 for _, length in frames) or start > at - index_size + 1 + count * width:
                raise CannotSeekError(DAMAGED)
            return frames
    return [(start, size)]


def _vp9_frame(head: bytes) -> tuple[bool, bool]:
    """Whether a frame is shown, and whether it is a key frame (6.2)."""
    reader = BitReader(head)
    if reader.u(2) != 2:
        raise CannotSeekError(DAMAGED)
    profile = reader.u(1) | reader.u(1) << 1
    if profile == 3 and reader.u(1):
        raise CannotSeekError(DAMAGED)
    if reader.u(1):
        return True, False
    is_key, shown = reader.u(1) == 0, reader.u(1) == 1
    reader.u(1)
    if is_key and reader.u(24) != 0x498342:
        raise CannotSeekError(DAMAGED)
    return shown, is_key


def _in_decode_order(index: "PacketIndex") -> None:
    """These codecs show packets in the order in which they come."""
    if (np.diff(index.pts) <= 0).any():
        raise CannotSeekError(ORDER)


# -------------------------------------------------------------------------------------- AV1
_SEQUENCE_HEADER, _TEMPORAL_DELIMITER, _FRAME_HEADER, _FRAME = 1, 2, 3, 6


def _av1(index: "PacketIndex") -> Structure:
    access = np.zeros(len(index), np.bool_)
    sequences: set[bytes] = set()
    for position in range(len(index)):
        start = int(index.offset[position])
        end = start + int(index.size[position])
        shown, is_key, has_sequence = 0, False, False
        for kind, at, stop in _obus(index.data, start, end):
            if kind == _SEQUENCE_HEADER:
                sequences.add(index.data[at:stop])
                has_sequence = True
            elif kind in (_FRAME, _FRAME_HEADER):
                visible, key = _av1_frame(index.data[at : at + 1])
                shown += visible
                is_key = is_key or (key and visible)
        if shown != 1:
            raise CannotSeekError(HIDDEN)
        access[position] = is_key and has_sequence and bool(index.key[position])
    if len(sequences) != 1:
        raise CannotSeekError(PARAMETERS_CHANGE)
    if BitReader(next(iter(sequences))).u(5) & 1:  # reduced still picture header
        raise CannotSeekError(UNSUPPORTED)
    _in_decode_order(index)
    return Structure(access, np.zeros(len(index), np.bool_))


def _obus(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The kinds and payloads of a temporal unit's open bitstream units (5.3)."""
    while at < end:
        header = data[at]
        if header & 0x81:
            raise CannotSeekError(DAMAGED)
        at += 1
        if header & 4:
            if data[at] & 0x18:
                raise CannotSeekError(UNSUPPORTED)  # spatial layers
            at += 1
        size = end - at
        if header & 2:
            size = 0
            for shift in range(0, 56, 7):
                byte = data[at]
                at += 1
                size |= (byte & 0x7F) << shift
                if not byte & 0x80:
                    break
        if at + size > end:
            raise CannotSeekError(DAMAGED)
        yield header >> 3 & 15, at, at + size
        at += size


def _av1_frame(head: bytes) -> tuple[bool, bool]:
    """Whether a frame is shown, and whether it is a key frame (5.9.2)."""
    reader = BitReader(head)
    if reader.u(1):
        return True, False
    kind = reader.u(2)
    return reader.u(1) == 1, kind == 0


# ----------------------------------------------------------------------------- MPEG-4 part 2
_VOL_START, _VOP_START = re.compile(rb"\x00\x00\x01[\x20-\x2f]"), b"\x00\x00\x01\xb6"


def _mpeg4(index: "PacketIndex") -> Structure:
    bits = _mpeg4_time_bits(index.extradata)
    kinds = np.empty(len(index), np.int64)
    for position in range(len(index)):
        start = int(index.offset[position])
        packet = index.data[start : start + int(index.size[position])]
        at = packet.find(_VOP_START)
        # Two in a packet are the packed B-frames of old encoders.
        if at < 0 or packet.count(_VOP_START) != 1:
            raise CannotSeekError(HIDDEN)
        reader = BitReader(packet[at + 4 : at + 20])
        kinds[position] = reader.u(2)
        while reader.u(1):
            pass
        if not reader.u(1):
            raise CannotSeekError(DAMAGED)
        reader.u(bits)
        if not reader.u(1):
            raise CannotSeekError(DAMAGED)
        if not reader.u(1):
            raise CannotSeekError(HIDDEN)
    intra, bi = kinds == 0, kinds == 2
    if (kinds == 3).any():
        raise CannotSeekError(UNSUPPORTED)  # sprites
    if (intra & ~bi != index.key).any():
        raise CannotSeekError(DAMAGED)
    # A B-frame is shown between the two references decoded last.
    references = np.flatnonzero(~bi)
    if (np.diff(index.pts[references]) <= 0).any():
        raise CannotSeekError(ORDER)
    behind = np.searchsorted(references, np.flatnonzero(bi))
    if len(behind):
        if (behind < 2).any():
            raise CannotSeekError(ORDER)
        low, high = index.pts[references[behind - 2]], index.pts[references[behind - 1]]
        shown = index.pts[bi]
        if ((shown <= low) | (shown >= high)).any():
            raise CannotSeekError(ORDER)
    return Structure(intra, bi)


def _mpeg4_time_bits(extradata: bytes) -> int:
    """Bits of a time increment, from the video object layer (6.2.3)."""
    found = _VOL_START.search(extradata)
    if found is None:
        raise CannotSeekError(UNSUPPORTED)
    reader = BitReader(extradata[found.end() : found.end() + 36])
    reader.u(9)
    if reader.u(1):
        reader.u(7)
    if reader.u(4) == 15:
        reader.u(16)
    if reader.u(1):
        reader.u(3)
        if reader.u(1):
            reader.u(79)
    if reader.u(2):
        raise CannotSeekError(UNSUPPORTED)  # shapes
    reader.u(1)
    resolution = reader.u(16)
    if not resolution:
        raise CannotSeekError(DAMAGED)
    return max(1, (resolution - 1).bit_length())


_READERS: "dict[str, Callable[[PacketIndex], Structure]]" = {
    "h264": _h264,
    "hevc": _hevc,
    "vp9": _vp9,
    "libdav1d": _av1,
    "mpeg4": _mpeg4,
}
