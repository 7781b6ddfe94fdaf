r"""How many bytes a file declares beyond those that are there.

Decoders shrug at a file cut short: they hand out what is left of it. Most containers say in their header how
long their payload is, so that a cut shows before anything is decoded.

>>> import io
>>> missing_bytes(io.BytesIO(b"RIFF\x2c\x00\x00\x00WAVEfmt \x04\x00\x00\x00....data\x10\x00\x00\x00half.."))
10
"""

import itertools
import os
import struct
from typing import BinaryIO

from mmmedia.containers.mp4_boxes import boxes

# Writers that do not know the length yet (pipes, live streams) declare one of the largest numbers.
_OPEN_ENDED_32 = 0x7FFF_0000
_OPEN_ENDED_64 = 1 << 62
# A header made of nothing but tiny chunks is not searched to its end.
_MAX_CHUNKS = 50_000
_MAX_OGG_PAGE = 27 + 255 + 255 * 255


def missing_bytes(file: BinaryIO) -> int:
    """Return how many bytes the container declares past the end of `file`; 0 when none or not known.

    Known are WAV, AVI and other RIFF forms, RF64, W64, AIFF, 8SVX, AU, CAF, Ogg, MP3 with an Info tag,
    MP4/MOV, and Matroska/WebM. A stream without a declared length (AAC or MP3 frames alone, a live
    recording) is never found short. `file` is left at its start.
    """
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return max(0, _declared_end(file, file.read(16), size) - size)
    except (struct.error, IndexError):  # too short even for its own header: a decoder will say so
        return 0
    finally:
        file.seek(0)


def _declared_end(file: BinaryIO, head: bytes, size: int) -> int:
    """Return where the payload ends, by the container's own account."""
    magic = head[:4]
    if magic in (b"RIFF", b"RIFX"):
        return _chunks_end(file, size, "<" if magic == b"RIFF" else ">", (b"data", b"LIST:movi"))
    if magic in (b"RF64", b"BW64"):
        return _rf64_end(file, size)
    if magic == b"FORM":
        return _chunks_end(file, size, ">", (b"SSND", b"BODY"))
    if magic == b".snd":
        offset, length = struct.unpack(">II", head[4:12])
        return 0 if length >= _OPEN_ENDED_32 else int(offset + length)
    if magic == b"caff":
        return _caf_end(file, size)
    if head == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00":
        return _w64_end(file, size)
    if magic == b"OggS":
        return _last_ogg_page_end(file, size)
    if magic == b"\x1a\x45\xdf\xa3":
        return _matroska_end(file)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof"):
        return _boxes_end(file, size)
    return _mp3_end(file, head)


def _chunks_end(file: BinaryIO, size: int, order: str, payloads: tuple[bytes, ...]) -> int:
    """Return the end of the first payload chunk of a form of chunks, as IFF and RIFF are."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > size:
            break
        file.seek(at)
        head = file.read(12)
        name, length = head[:4], struct.unpack(order + "I", head[4:8])[0]
        if name in payloads or name + b":" + head[8:] in payloads:
            return 0 if length >= _OPEN_ENDED_32 else int(at + 8 + length)
        at += 8 + length + length % 2
    return 0


def _rf64_end(file: BinaryIO, size: int) -> int:
    """Return the end of RF64's data chunk; its length stands in the ds64 chunk, unless it says it itself."""
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
            length = length if own >= _OPEN_ENDED_32 else own
            return 0 if length >= _OPEN_ENDED_64 else int(at + 8 + length)
        at += 8 + own + own % 2
    return 0


def _w64_end(file: BinaryIO, size: int) -> int:
    """Return the end of Wave64's data chunk.

    It is RIFF with 16-byte names, and 8-byte lengths that count their own header.
    """
    at = 40
    for _ in range(_MAX_CHUNKS):
        if at + 24 > size:
            break
        file.seek(at)
        name, length = struct.unpack("<16sQ", file.read(24))
        if name[:4] == b"data":
            return 0 if length >= _OPEN_ENDED_64 else int(at + length)
        at += max(24, -(-length // 8) * 8)
    return 0


def _caf_end(file: BinaryIO, size: int) -> int:
    at = 8
    for _ in range(_MAX_CHUNKS):
        if at + 12 > size:
            break
        file.seek(at)
        name, length = struct.unpack(">4sq", file.read(12))
        if name == b"data":
            return 0 if length < 0 else int(at + 12 + length)
        at += 12 + max(0, length)
    return 0


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


def _matroska_end(file: BinaryIO) -> int:
    """Return the end of Matroska's segment, which holds all the rest; live recordings leave it open."""
    file.seek(4)
    header, at = _ebml_length(file, 4)
    if header is None:
        return 0
    file.seek(at + header)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    length, at = _ebml_length(file, at + header + 4)
    return 0 if length is None else at + length


def _ebml_length(file: BinaryIO, at: int) -> tuple[int | None, int]:
    """Return a length in EBML's variable-size code (`None`: unknown), and where what it measures begins."""
    first = file.read(1)[0]
    if first == 0:
        return None, at + 1
    width = 9 - first.bit_length()
    value = int.from_bytes(bytes([first & (0xFF >> width)]) + file.read(width - 1), "big")
    return None if value == (1 << 7 * width) - 1 else value, at + width


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Return the end that a box of media at the top level of an MP4 declares beyond that of the file."""
    for name, (_, end) in itertools.islice(boxes(file, 0, size), _MAX_CHUNKS):
        if end > size:
            return end if name in (b"mdat", b"moov", b"moof") else 0
    return 0


_MP3_SIDE_INFO = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}


def _mp3_end(file: BinaryIO, head: bytes) -> int:
    """Return the end of MPEG audio whose first frame is an Info (or Xing) tag that counts its bytes."""
    at = 0
    if head[:3] == b"ID3":
        at = 10 + ((head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127)
    file.seek(at)
    frame = file.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # layer III
        return 0
    is_mpeg1, is_mono = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    tag = frame[4 + _MP3_SIDE_INFO[is_mpeg1, is_mono] :]
    if tag[:4] not in (b"Info", b"Xing"):
        return 0
    flags, *counts = struct.unpack(">III", tag[4:16])
    if not flags & 2:
        return 0
    return int(at + (counts[1] if flags & 1 else counts[0]))
