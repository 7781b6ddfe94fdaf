"""Sounds that are several files in one: chained Ogg, MP3 behind MP3; and where frames of MPEG audio begin.

Speech servers send each sentence as a file of its own down one connection, recorders append, radio servers
chain. Decoders read the first. Here the file is cut into its links, each of which is whole for a decoder, and
nothing is decoded.
"""

import functools
from collections.abc import Callable, Sized
from typing import Final, NamedTuple

from mmmedia.containers.truncation import is_placeholder
from mmmedia.errors import InvalidMediaError

MAX_LINKS: Final = 4096
"""More files in one than anyone sends."""

_HEAD: Final = 4096
"""How far frames may be searched that do not stand where the file begins: a KiB of text, or of a frame."""
_MAX_STRAY: Final = 1 << 16  # places between frames or pages that are looked at, one by one
_STRIDE: Final = 4096  # bytes that are searched for the next of them
_FEW_FRAMES: Final = 2  # encoders disagree on whether their tag is one of the frames that it counts


class Frame(NamedTuple):
    """What the header of a frame of MPEG audio says.

    Attributes:
        length: of the frame in bytes.
        kind: what does not change within a stream: version, layer, rate, and whether it is mono.
    """

    length: int
    kind: tuple[int, int, int, bool]


class _Piece(NamedTuple):
    """An MP3 file within another: where it begins and ends, and what its frames are.

    Attributes:
        begin: where the file begins, with a tag if it is the first one, else with its frames.
        first: where its first frame does.
        stop: where a tag begins behind its frames; where the next file does, if there is none.
        end: where the next file begins.
        frames: how many frames it has.
        bit_rates: the indices of their bit rates, as bits of a number.
    """

    begin: int
    first: int
    stop: int
    end: int
    frames: int
    bit_rates: int


# kbit/s by index, from 1 to 14: MPEG 1 layers I to III, then MPEG 2 and 2.5 layer I, layers II and III.
_RATES_1: Final = {
    1: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_RATES_2: Final = {
    1: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    3: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLING_RATES: Final = (44_100, 48_000, 32_000)


@functools.lru_cache(maxsize=4096)
def mpeg_frame(header: bytes) -> Frame | None:
    r"""Read the four bytes of a header (ISO/IEC 11172-3, 13818-3, and 2.5); `None`: they are none.

    Frames whose bit rate is free, which say nothing of their length, count as none.

    >>> mpeg_frame(b"\xff\xfb\x90\x00")
    Frame(length=417, kind=(3, 3, 44100, False))
    """
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    bits = 1000 * (_RATES_1 if version == 3 else _RATES_2)[layer][bit_rate - 1]
    sampling_rate = _SAMPLING_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    padding = header[2] >> 1 & 1
    if layer == 1:
        length = 4 * (12 * bits // sampling_rate + padding)
    else:
        length = (144 if layer == 2 or version == 3 else 72) * bits // sampling_rate + padding
    return Frame(length, (version, layer, sampling_rate, header[3] >> 6 == 3))


def adts_frame(header: bytes) -> Frame | None:
    r"""Read the six bytes of an ADTS header (ISO/IEC 13818-7); `None`: they are none.

    >>> adts_frame(b"\xff\xf1\x50\x80\x2e\x7f")
    Frame(length=371, kind=(1, 0, 4, False))
    """
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 0xF > 12:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    if length < 7:
        return None
    return Frame(length, (header[2] >> 6, 0, header[2] >> 2 & 0xF, False))


def frames_begin(data: bytes) -> int | None:
    """Return where in the first few KiB frames of MPEG audio or ADTS begin; `None`: nowhere.

    That is where three of one kind follow each other, or two if the file ends with the second. A header
    alone is no proof: four bytes of any sound may look like one.

    Args:
        data: a file, or its first 32 KiB.
    """
    at = data.find(b"\xff", 0, _HEAD)
    while at >= 0:
        if _is_stream(data, at, 4, mpeg_frame) or _is_stream(data, at, 6, adts_frame):
            return at
        at = data.find(b"\xff", at + 1, _HEAD)
    return None


def _is_stream(data: bytes, at: int, header: int, read: Callable[[bytes], Frame | None]) -> bool:
    """Whether frames of one kind follow each other from here on, whose headers have so many bytes."""
    kind = None
    for count in range(3):
        frame = read(data[at : at + header])
        if frame is None or frame.kind[:3] != (kind or frame.kind[:3]):
            return count == 2 and at >= len(data)
        kind, at = frame.kind[:3], at + frame.length
    return True


# --------------------------------------------------------------------------------------------------- Ogg


def ogg_links(data: bytes) -> list[bytes]:
    """Cut a chained Ogg file into its links (RFC 3533, 4); itself alone where it is none.

    A link begins where streams begin behind pages of others.

    Raises:
        InvalidMediaError: (a `ValueError`) thousands of links.
    """
    begins, at, stray, is_beginning = [0], 0, 0, True
    while (at := data.find(b"OggS\0", at)) >= 0 and at + 27 <= len(data) and stray < _MAX_STRAY:
        begins_stream = bool(data[at + 5] & 2)
        if begins_stream and not is_beginning:
            begins.append(at)
            _check_count(begins)
        is_beginning = begins_stream
        table = data[at + 27 : at + 27 + data[at + 26]]
        end = at + 27 + len(table) + sum(table)
        is_followed = data.startswith(b"OggS\0", end)
        stray += not is_followed
        at = end if is_followed else at + 4  # a page that is cut may hide the next
    return _cut(data, begins)


def opus_rate(link: bytes) -> int | None:
    """Return the rate in Hz that an Ogg Opus file of one or two channels was made from; `None`: another file.

    RFC 7845, 5.1. It is 48 000 where nothing is said.
    """
    head = link[28:47] if len(link) > 47 and link[26] == 1 else b""
    if head[:8] != b"OpusHead" or head[9] not in (1, 2) or head[18]:
        return None
    return int.from_bytes(head[12:16], "little") or 48_000


# --------------------------------------------------------------------------------------------------- MP3


class Link(NamedTuple):
    """A file of which a file consists.

    Attributes:
        data: its bytes.
        samples: of each channel, where nothing in the file counts them; None where something does.
    """

    data: bytes
    samples: int | None = None


def mp3_links(data: bytes) -> list[Link]:
    """Cut MP3 files that stand behind each other into those files; the whole alone where it is one.

    A file begins with an ID3 tag, with a frame that holds an Info, Xing or VBRI tag, with frames of another
    kind, or where the frames are over that the tag of the one before counted. A tag that counts less than the
    frames of its own file is replaced, and one is put before frames of varying bit rates that have none: from
    the length of the first frame no decoder knows how many there are. Nor does one at a constant bit rate, as
    frames of 44.1 kHz are not all of one length, and a picture in a tag is as long as minutes of sound: there
    the frames alone are given, and their samples counted.

    Raises:
        InvalidMediaError: (a `ValueError`) thousands of files.
    """
    pieces = _mp3_pieces(data)
    if pieces and pieces[0].first <= _plain_tag_length(data):
        pieces[0] = pieces[0]._replace(begin=0)  # one that every decoder skips
    links = [link for piece in pieces for link in _by_count(data, piece)]
    _check_count(links)
    return links or [Link(data)]


def _mp3_pieces(data: bytes) -> list[_Piece]:
    """Where files begin and end, by their tags and the kinds of their frames."""
    pieces: list[_Piece] = []
    first, stop, frames, bit_rates, kind = -1, 0, 0, 0, None
    at, last, stray, is_synchronous = 0, 0, 0, False
    while at + 4 <= len(data):
        frame = mpeg_frame(data[at : at + 4])
        if frame is not None and not (is_synchronous and frame.kind == kind):
            frame = frame if _is_followed(data, at, frame) else None
        skipped = 0 if frame is not None else _tag_length(data, at)
        is_new = (
            data.startswith(b"ID3", at) if frame is None else frame.kind != kind or _has_tag(data, at, frame)
        )
        if first >= 0 and is_new and (frame is not None or skipped):
            pieces.append(_piece(data, first, stop, at, frames, bit_rates))
            _check_count(pieces)
            first, frames, bit_rates = -1, 0, 0
        if frame is None and not skipped and is_synchronous:
            at = last  # a frame that is cut may hide the next file
        is_synchronous = frame is not None
        if frame is not None:
            last = at
            first, kind = (at, frame.kind) if first < 0 else (first, kind)
            frames += 1
            bit_rates |= 1 << (data[at + 2] >> 4)
            at = stop = at + frame.length
        else:
            stray += 1
            if stray > _MAX_STRAY:
                break
            at = at + skipped if skipped else _next_candidate(data, at + 1)
    if first >= 0:
        pieces.append(_piece(data, first, stop, len(data), frames, bit_rates))
    return pieces


def _piece(data: bytes, first: int, stop: int, end: int, frames: int, bit_rates: int) -> _Piece:
    return _Piece(first, first, stop if _tag_length(data, stop) else end, end, frames, bit_rates)


def _is_followed(data: bytes, at: int, frame: Frame) -> bool:
    """Whether a frame is followed by one of its kind, a tag, or nothing."""
    end = at + frame.length
    if end + 4 > len(data):
        return True
    following = mpeg_frame(data[end : end + 4])
    return _tag_length(data, end) > 0 if following is None else following.kind == frame.kind


def _tag_length(data: bytes, at: int) -> int:
    """How long the ID3 or APE tag is that begins here; 0: none does."""
    head = data[at : at + 32]
    if head.startswith(b"ID3") and len(head) >= 10 and max(head[6:10]) < 0x80:
        return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + (10 if head[5] & 0x10 else 0)
    if head.startswith(b"TAG"):
        return 128
    if head.startswith(b"APETAGEX") and len(head) == 32:
        return 32 + int.from_bytes(head[12:16], "little")
    return 0


def _plain_tag_length(data: bytes) -> int:
    """How long the ID3 tag is with which a file begins, if it has no footer; 0: there is no such tag."""
    return _tag_length(data, 0) if data.startswith(b"ID3") and not data[5:6] >= b"\x10" else 0


def _next_candidate(data: bytes, at: int) -> int:
    """Where the next byte is at which a frame or a tag may begin, or how far there is none."""
    end = data.find(b"\xff", at, at + _STRIDE)
    end = min(at + _STRIDE, len(data)) if end < 0 else end
    found = (data.find(name, at, end + len(name) - 1) for name in (b"ID3", b"TAG", b"APETAGEX"))
    return min((place for place in found if place >= 0), default=end)


def _side_info(frame: Frame) -> int:
    """The length of what lies between the header and the samples of a frame of layer III."""
    version, _, _, is_mono = frame.kind
    return (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)


def _samples_of(frame: Frame) -> int:
    version, layer, _, _ = frame.kind
    return 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152


def _has_tag(data: bytes, at: int, frame: Frame) -> bool:
    """Whether a frame holds a tag in place of sound, as the first of a file does."""
    if frame.kind[1] != 3:
        return False
    return data.startswith((b"Info", b"Xing"), at + 4 + _side_info(frame)) or data.startswith(
        b"VBRI", at + 36
    )


def _by_count(data: bytes, piece: _Piece) -> list[Link]:
    """Cut a piece where the frames are over that its own tag counts, if there are more."""
    whole = Link(data[piece.begin : piece.end])
    frame = mpeg_frame(data[piece.first : piece.first + 4])
    if frame is None:
        return [whole]
    if not _has_tag(data, piece.first, frame):
        bare = data[piece.first : piece.stop]
        if frame.kind[1] == 3 and piece.bit_rates & piece.bit_rates - 1:  # varying
            return [Link(_tagged(bare, frame, piece.frames))]
        return [Link(bare, piece.frames * _samples_of(frame))]
    tag = piece.first + (36 if data.startswith(b"VBRI", piece.first + 36) else 4 + _side_info(frame))
    if data.startswith(b"VBRI", tag):
        counted = int.from_bytes(data[tag + 14 : tag + 18])
    elif int.from_bytes(data[tag + 4 : tag + 8]) & 1:
        counted = int.from_bytes(data[tag + 8 : tag + 12])
    else:
        return [whole]
    behind = at = piece.first + frame.length
    if behind + 4 > piece.end:  # there is nothing but the tag
        return [whole]
    if counted >= piece.frames - 1 - _FEW_FRAMES:
        if counted >= piece.frames and is_placeholder(counted, piece.frames, can_be_far_off=False):
            return [Link(_tagged(data[behind : piece.end], frame, piece.frames - 1))]
        return [whole]
    for _ in range(counted):
        following = mpeg_frame(data[at : at + 4])
        if following is None:
            return [whole]
        at += following.length
    if counted and _begins_afresh(data, at, frame):
        rest = piece._replace(begin=at, first=at, frames=piece.frames - 1 - counted)
        return [Link(data[piece.begin : at]), *_by_count(data, rest)]
    return [Link(_tagged(data[behind : piece.end], frame, piece.frames - 1))]


def _tagged(frames: bytes, frame: Frame, count: int) -> bytes:
    """Frames of layer III behind a tag that counts them."""
    header = frames[:4]
    tag = bytes(_side_info(frame)) + b"Xing" + (1).to_bytes(4) + count.to_bytes(4)
    for bit_rate in range(1, 15):  # the lowest that has room
        header = bytes([frames[0], frames[1] | 1, bit_rate << 4 | frames[2] & 0x0C, frames[3]])
        held = mpeg_frame(header)
        if held is not None and held.length >= len(header) + len(tag):
            return b"".join(((header + tag).ljust(held.length, b"\0"), frames))
    return frames


def _begins_afresh(data: bytes, at: int, like: Frame) -> bool:
    """Whether a frame of layer III needs nothing of those before it: its main data begins with it."""
    has_checksum = not data[at + 1 : at + 2] or not data[at + 1] & 1
    side = at + (6 if has_checksum else 4)
    bits = 9 if like.kind[0] == 3 else 8
    return int.from_bytes(data[side : side + 2]) >> 16 - bits == 0


def _check_count(links: Sized) -> None:
    if len(links) > MAX_LINKS:
        raise InvalidMediaError("The file is made of thousands of files.")


def _cut(data: bytes, begins: list[int]) -> list[bytes]:
    if len(begins) == 1:
        return [data]
    return [data[begin:end] for begin, end in zip(begins, [*begins[1:], len(data)], strict=True)]
