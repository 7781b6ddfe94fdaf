"""The elements of a Matroska or WebM file (RFC 8794, RFC 9559): what of them is read and written."""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

HEADER, SEGMENT = 0x1A45DFA3, 0x18538067
SEEK_HEAD, SEEK, SEEK_ID, SEEK_POSITION = 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
INFO, SCALE, TRACKS, TRACK, CUES, CLUSTER = 0x1549A966, 0x2AD7B1, 0x1654AE6B, 0xAE, 0x1C53BB6B, 0x1F43B675
NUMBER, KIND, CODEC, DEFAULT_DURATION, ENCODINGS = 0xD7, 0x83, 0x86, 0x23E383, 0x6D80
PICTURES, COLOUR, SITED_ACROSS, SITED_DOWN = 0xE0, 0x55B0, 0x55B7, 0x55B8
TAGS, CHAPTERS, ATTACHMENTS = 0x1254C367, 0x1043A770, 0x1941A469
UID, TAG, TARGETS, TAG_UID, SIMPLE_TAG, TAG_NAME, TAG_STRING = (
    0x73C5, 0x7373, 0x63C0, 0x63C5, 0x67C8, 0x45A3, 0x4487,
)  # fmt: skip
TIME, SIMPLE_BLOCK, GROUP, BLOCK, REFERENCE = 0xE7, 0xA3, 0xA0, 0xA1, 0xFB
CUE_POINT, CUE_TIME, CUE_PLACES, CUE_TRACK, CUE_CLUSTER, CUE_WITHIN = 0xBB, 0xB3, 0xB7, 0xF7, 0xF1, 0xF0


class ElementError(ValueError):
    """What should be elements is none, or can't be read; the argument is why."""


LONGEST_HEAD = 12
"""Bytes of an element's identifier and length at most."""


class Element(NamedTuple):
    """An element: what it is, where it begins, where its content does, and where it ends."""

    kind: int
    start: int
    begin: int
    stop: int


def element(data: bytes, at: int, base: int = 0) -> Element | None:
    """Return the element at an offset of some bytes; None where they end within its head.

    Args:
        data: the bytes.
        at: the offset.
        base: where in the file the bytes begin.

    Raises:
        ElementError: no element, or one of unknown length.
    """
    if at >= len(data):
        return None
    width = 9 - data[at].bit_length()
    if width > 4:
        raise ElementError("elements")
    if at + width >= len(data):
        return None
    kind = int.from_bytes(data[at : at + width], "big")
    begin = at + width
    longer = 9 - data[begin].bit_length()
    if longer > 8:
        raise ElementError("elements")
    if begin + longer > len(data):
        return None
    length = int.from_bytes(data[begin : begin + longer], "big") & ((1 << 7 * longer) - 1)
    if length == (1 << 7 * longer) - 1:
        raise ElementError("elements of unknown length")
    begin += longer
    return Element(kind, base + at, base + begin, base + begin + length)


def children(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what each element of some content is, and its own content.

    Raises:
        ElementError: one reaches beyond it.
    """
    at = 0
    while at < len(data):
        found = element(data, at)
        if found is None or found.stop > len(data):
            raise ElementError("elements")
        yield found.kind, data[found.begin : found.stop]
        at = found.stop


def number(data: bytes) -> int:
    """Return an unsigned integer."""
    return int.from_bytes(data, "big")


_HEADERS = 1 << 20


def may_be_told(data: bytes, *names: bytes) -> bool:
    """Return whether some bytes, as of an element's identifier, stand in front of the first cluster."""
    media = data.find(CLUSTER.to_bytes(4, "big"), 0, _HEADERS)
    return any(data.find(name, 0, media if media >= 0 else _HEADERS) >= 0 for name in names)


def written(kind: int, content: bytes, *, wide: bool = False) -> bytes:
    """Return an element.

    Args:
        kind: what it is.
        content: what is in it.
        wide: whether its length takes eight bytes, however small it is.
    """
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    if len(content) < 127 and not wide:
        return name + bytes([0x80 | len(content)]) + content
    return name + struct.pack(">Q", 1 << 56 | len(content)) + content


class Block(NamedTuple):
    """A block of a cluster.

    Attributes:
        track: its track's number.
        time: in ticks of the file.
        is_key: whether decoding may begin here, for all that the file says.
        is_laced: whether it holds several frames.
        begin: where its payload begins.
        stop: where that ends, and most often the block.
        start: where the element begins.
        end: where that ends.
    """

    track: int
    time: int
    is_key: bool
    is_laced: bool
    begin: int
    stop: int
    start: int
    end: int


_MOST_ELEMENTS = 256  # before the first block


def first(peek: Callable[[int, int], bytes], cluster: Element) -> tuple[int, int] | None:
    """Return where the content of a cluster goes on behind its time, and that in ticks of the file.

    None: it is not there to be read.

    Args:
        peek: as of `blocks`.
        cluster: the element.
    """
    at = cluster.begin
    for _ in range(_MOST_ELEMENTS):
        if at >= cluster.stop:
            break
        head = peek(at, LONGEST_HEAD + 8)
        found = element(head, 0, at)
        if found is None or found.stop - at > len(head):
            return None
        if found.kind == TIME:
            return found.stop, number(head[found.begin - at : found.stop - at])
        at = found.stop
    return None


_HEAD_OF_BLOCK = 16
_MOST_IN_CLUSTER = 1 << 18
_MOST_IN_GROUP = 64


def blocks(
    peek: Callable[[int, int], bytes], at: int, stop: int, time: int, most: int = _MOST_IN_CLUSTER
) -> Iterator[Block]:
    """Yield the blocks of a cluster; it ends where bytes are not there.

    Args:
        peek: returns so many bytes at an offset of the file, fewer or none where they are not there.
        at: where an element of the cluster begins.
        stop: where the cluster ends.
        time: that of the cluster, in ticks.
        most: how many elements it may have.
    """
    number = 0
    while at < stop:
        head = peek(at, LONGEST_HEAD + _HEAD_OF_BLOCK)
        found, number = element(head, 0, at), number + 1
        if found is None:
            return
        if found.stop > stop or number > most:
            raise ElementError("elements")
        if found.kind == SIMPLE_BLOCK:
            block = _block(head, found, found, time)
            if block is None:
                return
            yield block
        elif found.kind == GROUP:
            group = _group(peek, found, time)
            if group is None:
                return
            yield group
        at = found.stop


def _block(head: bytes, found: Element, outer: Element, time: int, key: bool | None = None) -> Block | None:
    at = found.begin - found.start
    width = 9 - head[at].bit_length() if at < len(head) else 1
    if at + width + 3 > len(head):
        return None
    track = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
    ticks, flags = struct.unpack_from(">hB", head, at + width)
    is_key = bool(flags & 0x80) if key is None else key
    begin = found.begin + width + 3
    return Block(track, time + ticks, is_key, bool(flags & 0x06), begin, found.stop, outer.start, outer.stop)


def _group(peek: Callable[[int, int], bytes], outer: Element, time: int) -> Block | None:
    """The block of a group, which refers to others or is a key frame."""
    at, inner, refers, number = outer.begin, None, False, 0
    head = b""
    while at < outer.stop:
        number += 1
        if number > _MOST_IN_GROUP:
            raise ElementError("elements")
        read = peek(at, LONGEST_HEAD + _HEAD_OF_BLOCK)
        found = element(read, 0, at)
        if found is None:
            return None
        if found.kind == BLOCK:
            inner, head = found, read
        refers = refers or found.kind == REFERENCE
        at = found.stop
    return None if inner is None else _block(head, inner, outer, time, not refers)
