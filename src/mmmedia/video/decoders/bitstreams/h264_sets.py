"""H.264 parameter sets (ITU-T H.264, 7.3.2.1, 7.3.2.2, E.1), and the record that holds them."""

import re
from dataclasses import dataclass

from mmmedia.video.decoders.bitstreams.bits import BitReader, HeaderEndError, unescape
from mmmedia.video.decoders.bitstreams.nal_units import parameter_set
from mmmedia.video.decoders.bitstreams.structure import INTERLACED, UNSUPPORTED, CannotSeekError

SLICE, IDR, SEI, SPS, PPS = 1, 5, 6, 7, 8
_HIGH_PROFILES = frozenset([44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244])


@dataclass(frozen=True)
class Sequence:
    """What is read of a sequence parameter set.

    Attributes:
        frame_num_bits: how long a number of a frame is.
        order_type: how the order of pictures is told.
        order_bits: how long that is, where the type is 0.
        chroma: whether there is any.
        bit_depth: of luma.
        macroblocks: of a picture.
        says_fields: whether messages may call a picture interlaced.
        colours: primaries, transfer and matrix, where they are told.
        delay_bits: what stands in front of the structure of a picture in such a message.
        stored_pictures: how many may be referred to.
        number: of the set.
        refusal: why nothing can be sought in such a stream; None where it can.
    """

    frame_num_bits: int
    order_type: int
    order_bits: int
    chroma: bool
    bit_depth: int
    macroblocks: int
    says_fields: bool
    colours: tuple[int, int, int] | None
    delay_bits: int
    stored_pictures: int
    number: int
    refusal: str | None


@dataclass(frozen=True)
class Picture:
    """Flags of a picture parameter set, in the order of the table that is made of them."""

    known: int
    cabac: int
    weighted: int
    weighted_bi: int
    references: tuple[int, int]
    quantiser: int
    deblocking: int


def with_picture_set(extradata: bytes, payload: bytes) -> bytes:
    """An AVCDecoderConfigurationRecord with one more picture parameter set."""
    at = 6
    for _ in range(extradata[5] & 31):
        at += 2 + int.from_bytes(extradata[at : at + 2], "big")
    inserted = len(payload).to_bytes(2, "big") + payload
    return extradata[:at] + bytes([extradata[at] + 1]) + inserted + extradata[at + 1 :]


def read_avcc(extradata: bytes) -> tuple[int, list[bytes]]:
    """The length of a length prefix, and the parameter sets, of an AVCDecoderConfigurationRecord."""
    if len(extradata) < 7 or extradata[0] != 1:
        raise CannotSeekError(UNSUPPORTED)
    sets: list[bytes] = []
    at = 5
    for mask in (31, 255):
        count = extradata[at] & mask
        at += 1
        for _ in range(count):
            payload, at = parameter_set(extradata, at)
            sets.append(payload)
    return (extradata[4] & 3) + 1, sets


def read_sequence(payload: bytes) -> Sequence:
    """Read a sequence parameter set; raises CannotSeekError for what can't be sought in, such as fields."""
    sequence = any_sequence(payload)
    if sequence.refusal is not None:
        raise CannotSeekError(sequence.refusal)
    return sequence


def any_sequence(payload: bytes) -> Sequence:
    """Read a sequence parameter set, be it of fields."""
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
    order_type, order_bits = reader.ue(), 0
    if order_type == 0:
        order_bits = 4 + reader.ue()
    elif order_type == 1:
        reader.u(1)
        reader.se()
        reader.se()
        for _ in range(min(reader.ue(), 255)):
            reader.se()
    stored_pictures, gaps = reader.ue(), reader.u(1)
    width, height = reader.ue() + 1, reader.ue() + 1
    refusal = None
    if order_type == 1 or separate or gaps or max(frame_num_bits, order_bits) > 16:
        refusal = UNSUPPORTED
    if not reader.u(1):
        refusal = INTERLACED
        reader.u(1)
    fields, delay_bits, colours = _usability(reader)
    return Sequence(
        frame_num_bits,
        order_type,
        order_bits,
        chroma_format != 0,
        bit_depth,
        width * height,
        fields,
        colours,
        delay_bits,
        stored_pictures,
        number,
        refusal,
    )


def _usability(reader: BitReader) -> tuple[bool, int, tuple[int, int, int] | None]:
    """Whether messages tell of picture structures (E.1.1), how many bits stand in front of that; colours."""
    reader.u(1)
    if reader.u(1):  # cropping
        for _ in range(4):
            reader.ue()
    colours = None
    if not reader.u(1):
        return False, 0, None
    if reader.u(1) and reader.u(8) == 255:  # aspect ratio
        reader.u(32)
    if reader.u(1):  # overscan
        reader.u(1)
    if reader.u(1):  # video signal
        reader.u(4)
        if reader.u(1):
            colours = reader.u(8), reader.u(8), reader.u(8)
    if reader.u(1):  # chroma location
        reader.ue()
        reader.ue()
    if reader.u(1):  # timing
        reader.u(65)
    delay_bits = 0
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
            reader.u(5)
            delay_bits = reader.u(5) + 1 + reader.u(5) + 1
            reader.u(5)
    if buffered:
        reader.u(1)
    return reader.u(1) == 1, delay_bits, colours


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
        _, parameter_sets = read_avcc(record)
        return not any(read_sequence(p).says_fields for p in parameter_sets if p[0] & 31 == SPS)
    except (CannotSeekError, HeaderEndError, IndexError):
        return False


def _skip_scaling_list(reader: BitReader, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + reader.se()) % 256
        last = following or last


def read_picture(payload: bytes) -> tuple[int, Picture]:
    """Read a picture parameter set: its number and flags; raises CannotSeekError as `read_sequence`."""
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
    return number, Picture(1, cabac, weighted, weighted_bi, references, quantiser, deblocking)
