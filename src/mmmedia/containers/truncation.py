r"""How many bytes a file declares beyond those that are there, and which declarations mean nothing.

Decoders shrug at a file cut short: they hand out what is left of it. Most containers say in their header how
long their payload is, so that a cut shows before anything is decoded. But whoever writes into a pipe writes
the header first, and puts a placeholder where the length will never stand. One rule tells the two apart.

A declared length that the file does not reach is a **placeholder** if any of these holds, else it is true
and the file is **truncated**:

1. It is 0, or what a format keeps for unknown (-1, all ones), and samples follow.
2. It lies within 64 KiB of a multiple of 2^30 or of 10^9: the largest numbers of 31, 32 and 64 bits, 1 GiB,
   2 000 000 000. (A real length does so once in 8000 times, and only beyond a gigabyte.)
3. What is missing is more than 64 times what is there, which is a KiB at least. A download that was cut has
   come further; only a number that nobody counted is so far off. This holds where a length is written before
   what it counts (WAV, RF64, W64, AIFF, 8SVX, AU, CAF), not where writers come back to it (MP4, Matroska,
   MP3).

What follows a placeholder is sound to its end. FLAC counts samples, with 0 for unknown, and its decoder
compares; the pages of Ogg and the frames of ADTS say where each of them ends, never where all do.

>>> import io
>>> missing_bytes(io.BytesIO(b"RIFF\x2c\x00\x00\x00WAVEfmt \x04\x00\x00\x00....data\x10\x00\x00\x00half.."))
10
>>> missing_bytes(io.BytesIO(b"RIFF\x24\x94\x35\x77WAVEfmt \x04\x00\x00\x00....data\x00\x94\x35\x77half.."))
0
"""

import io
import itertools
import os
import struct
from typing import BinaryIO, Final, NamedTuple

from mmmedia.containers.mp4_boxes import boxes

_ROUND_UNITS: Final = (1 << 30, 10**9)
_NEARLY: Final = 1 << 16  # what a header takes from the largest number, and more
_MANY: Final = 64
_FEW: Final = 1 << 10  # bytes; of less nothing can be told
# A header made of nothing but tiny chunks is not searched to its end.
_MAX_CHUNKS = 50_000
_LARGEST_32: Final = 0xFFFF_FFFF
_MAX_OGG_PAGE = 27 + 255 + 255 * 255


class Payload(NamedTuple):
    """The samples of a file, by its header.

    Attributes:
        begin: where what the length counts begins.
        length: how many bytes it counts; 0 or less, or the largest number: unknown.
        field: where in the file the length stands.
        code: how it is written, for `struct`.
        can_be_far_off: whether the length was written before what it counts.
    """

    begin: int
    length: int
    field: int
    code: str
    can_be_far_off: bool = True


def is_placeholder(length: int, there: int, can_be_far_off: bool = True) -> bool:
    """Whether a declared length that the file does not reach was never meant; the rule of this module.

    Args:
        length: as it is declared, in bytes.
        there: how many bytes there are.
        can_be_far_off: whether the length was written before what it counts.

    >>> is_placeholder(0x7FFF_FFFF, 1000), is_placeholder(1000, 500), is_placeholder(1_000_000, 5000)
    (True, False, True)
    """
    if length <= 0:
        return True
    if any(length > _NEARLY and min(length % unit, -length % unit) <= _NEARLY for unit in _ROUND_UNITS):
        return True
    return can_be_far_off and there >= _FEW and length - there > _MANY * there


def missing_bytes(file: BinaryIO) -> int:
    """Return how many bytes the container declares past the end of `file`; 0 when none or not known.

    Known are WAV, AVI and other RIFF forms, RF64, W64, AIFF, 8SVX, AU, CAF, Ogg, MP3 with an Info tag,
    MP4/MOV, and Matroska/WebM. A stream without a declared length (AAC or MP3 frames alone, a live
    recording) is never found short. `file` is left at its start.
    """
    found, size = _declared(file)
    if isinstance(found, int):
        return max(0, found - size)
    if found is None or found.begin + found.length <= size:
        return 0
    there = max(0, size - found.begin)
    return 0 if is_placeholder(found.length, there, found.can_be_far_off) else found.length - there


def with_true_length(file: BinaryIO) -> BinaryIO:
    """Return a file with the length of what is there in place of a placeholder; itself if it has none.

    Decoders disagree on which numbers mean that nobody knows. Both files are left at their start.
    """
    found, size = _declared(file)
    if not isinstance(found, Payload) or not found.can_be_far_off:
        return file
    there = size - found.begin
    if there <= 0 or 0 < found.length <= there or not is_placeholder(found.length, there):
        return file
    data = file.read()
    file.seek(0)
    if found.length == 0 and _are_chunks(data, found.begin, found.code[0]):
        return file
    try:
        field = struct.pack(found.code, there)
    except struct.error:
        return file
    return io.BytesIO(b"".join((data[: found.field], field, data[found.field + len(field) :])))


def _are_chunks(data: bytes, at: int, order: str) -> bool:
    """Whether chunks follow side by side up to the end: then a length of 0 before them was meant."""
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        if not data[at : at + 4].isascii():
            return False
        (length,) = struct.unpack_from(order + "I", data, at + 4)
        at += 8 + length + length % 2
    return len(data) <= at <= len(data) + 1


def _declared(file: BinaryIO) -> tuple[Payload | int | None, int]:
    """The payload, or where the file ends at the earliest, by its container's account; and where it ends."""
    size = file.seek(0, os.SEEK_END)
    try:
        file.seek(0)
        return _by_kind(file, file.read(16), size), size
    except (struct.error, IndexError):  # too short even for its own header: a decoder will say so
        return None, size
    finally:
        file.seek(0)


def _by_kind(file: BinaryIO, head: bytes, size: int) -> Payload | int | None:
    magic = head[:4]
    if magic in (b"RIFF", b"RIFX"):
        return _in_chunks(file, size, "<" if magic == b"RIFF" else ">", (b"data", b"LIST:movi"))
    if magic in (b"RF64", b"BW64"):
        return _in_rf64(file, size)
    if magic == b"FORM":
        return _in_chunks(file, size, ">", (b"SSND", b"BODY"))
    if magic == b".snd":
        offset, length = struct.unpack(">II", head[4:12])
        return Payload(offset, length, 8, ">I")
    if magic == b"caff":
        return _in_caf(file, size)
    if head == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00":
        return _in_w64(file, size)
    if magic == b"OggS":
        return _last_ogg_page_end(file, size)
    if magic == b"\x1a\x45\xdf\xa3":
        return _in_matroska(file)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof"):
        return _in_boxes(file, size)
    return _in_mp3(file, head)


def _in_chunks(file: BinaryIO, size: int, order: str, payloads: tuple[bytes, ...]) -> Payload | None:
    """IFF and RIFF: a form of chunks; the first payload chunk."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > size:
            break
        file.seek(at)
        head = file.read(12)
        name, length = head[:4], struct.unpack(order + "I", head[4:8])[0]
        if name in payloads:
            return Payload(at + 8, length, at + 4, order + "I")
        if name + b":" + head[8:] in payloads:
            return Payload(at + 8, length, at + 4, order + "I", can_be_far_off=False)
        at += 8 + length + length % 2
    return None


def _in_rf64(file: BinaryIO, size: int) -> Payload | None:
    """RF64: the length of the data chunk stands in the ds64 chunk, unless the chunk itself says it."""
    file.seek(12)
    head = file.read(24)
    length = struct.unpack("<Q", head[16:24])[0] if head[:4] == b"ds64" else 0
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > size:
            break
        file.seek(at)
        name, own = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            if own != _LARGEST_32 or head[:4] != b"ds64":
                return Payload(at + 8, own, at + 4, "<I")
            return Payload(at + 8, length, 28, "<Q")
        at += 8 + own + own % 2
    return None


def _in_w64(file: BinaryIO, size: int) -> Payload | None:
    """Wave64: RIFF with 16-byte names and 8-byte lengths that count their own header."""
    at = 40
    for _ in range(_MAX_CHUNKS):
        if at + 24 > size:
            break
        file.seek(at)
        name, length = struct.unpack("<16sQ", file.read(24))
        if name[:4] == b"data":
            return Payload(at, length, at + 16, "<Q")
        at += max(24, -(-length // 8) * 8)
    return None


def _in_caf(file: BinaryIO, size: int) -> Payload | None:
    at = 8
    for _ in range(_MAX_CHUNKS):
        if at + 12 > size:
            break
        file.seek(at)
        name, length = struct.unpack(">4sq", file.read(12))
        if name == b"data":
            return Payload(at + 12, length, at + 4, ">q")
        at += 12 + max(0, length)
    return None


def _last_ogg_page_end(file: BinaryIO, size: int) -> int:
    file.seek(max(0, size - _MAX_OGG_PAGE))
    tail = file.read(_MAX_OGG_PAGE)
    at = tail.rfind(b"OggS\0")
    if at < 0:
        return 0
    page = tail[at:]
    table = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(table) < page[26]:
        return size + 1  # cut inside the header of a page: at least one byte is missing
    return size - len(page) + 27 + len(table) + sum(table)


def _in_matroska(file: BinaryIO) -> Payload | None:
    """The segment, which holds all the rest; live recordings leave it open."""
    file.seek(4)
    header, at = _ebml_length(file, 4)
    if header is None:
        return None
    file.seek(at + header)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    length, begin = _ebml_length(file, at + header + 4)
    return None if length is None else Payload(begin, length, at + header + 4, "", can_be_far_off=False)


def _ebml_length(file: BinaryIO, at: int) -> tuple[int | None, int]:
    """Return a length in EBML's variable-size code (`None`: unknown), and where what it measures begins."""
    first = file.read(1)[0]
    if first == 0:
        return None, at + 1
    width = 9 - first.bit_length()
    value = int.from_bytes(bytes([first & (0xFF >> width)]) + file.read(width - 1), "big")
    return None if value == (1 << 7 * width) - 1 else value, at + width


def _in_boxes(file: BinaryIO, size: int) -> Payload | None:
    """Return the box of media, at the top level of an MP4, that reaches past the end of the file."""
    for name, (start, end) in itertools.islice(boxes(file, 0, size), _MAX_CHUNKS):
        if end > size:
            is_media = name in (b"mdat", b"moov", b"moof")
            return Payload(start, end - start, start, "", can_be_far_off=False) if is_media else None
    return None


_MP3_SIDE_INFO = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}


def _in_mp3(file: BinaryIO, head: bytes) -> Payload | None:
    """MPEG audio whose first frame is an Info (or Xing) tag that counts the bytes of the stream."""
    at = 0
    if head[:3] == b"ID3":
        at = 10 + ((head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127)
    file.seek(at)
    frame = file.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # layer III
        return None
    is_mpeg1, is_mono = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    tag = frame[4 + _MP3_SIDE_INFO[is_mpeg1, is_mono] :]
    if tag[:4] not in (b"Info", b"Xing"):
        return None
    flags, *counts = struct.unpack(">III", tag[4:16])
    if not flags & 2:
        return None
    return Payload(at, counts[1] if flags & 1 else counts[0], at, "", can_be_far_off=False)
