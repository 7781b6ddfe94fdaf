r"""Which containers a decoder may be shown: recognised by their first bytes, before FFmpeg sees any.

FFmpeg follows what it reads: a playlist, a concat script or an SDP text makes it open files and sockets
that the bytes name. So every path on which FFmpeg opens a stranger's bytes passes here first: `identify`
judges the first bytes, `admit` also what tables claim that FFmpeg would take memory for, and FFmpeg itself is
held to `FORMAT_WHITELIST`, to in-memory reading, and to no protocol at all.

>>> identify(b"\x1aE\xdf\xa3" + bytes(28))
'matroska'
>>> identify(b"ffconcat version 1.0\nfile /etc/passwd")
Traceback (most recent call last):
    ...
mmmedia.errors.InvalidMediaError: A concat script is not media: it names other files to open; refused.
"""

import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmmedia.errors import InvalidMediaError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from av.container import InputContainer
    from av.video.stream import VideoStream

Buffer = bytes | bytearray | memoryview

# FFmpeg's names of the demuxers of self-contained files. Playlists, scripts, session descriptions,
# image sequences and devices are not on the list and never will be.
FORMAT_WHITELIST = (
    "mov,matroska,avi,mpegts,mpeg,flv,live_flv,asf,asf_o,ogg,ivf,yuv4mpegpipe,gif,nut,mxf,rm,dv,wtv,"
    "gxf,av1,obu,h264,hevc,vvc,m4v,mpegvideo,vc1,cavsvideo,avs2,avs3,dirac,mjpeg,wav,w64,aiff,au,caf,"
    "flac,mp3,aac,ac3,eac3,dts,amr,ape,tta,wv,mpc,mpc8,dsf,voc,truehd,tak,iff"
)

AV_OPTIONS = {"format_whitelist": FORMAT_WHITELIST, "protocol_whitelist": "none"}

# Boxes of an MP4 that hold tables of samples, and where in such a table the number of its entries stands.
_HOLDERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"})
_COUNT_AT = {
    b"stsz": 8,
    b"stz2": 8,
    b"trun": 4,
    **dict.fromkeys((b"stts", b"ctts", b"stsc", b"stco", b"stss"), 4),
}
_FEW_ENTRIES = 1 << 22
_MOST_BOXES = 200_000

# Transport streams: their packets (ISO/IEC 13818-1, 2.4.3), and the stream types that are H.264 to FFmpeg.
_SYNC, _PACKET = 0x47, 188
_STRETCH = 1 << 20
_PACKET_SIZES = (188, 192, 204)
_MOST_PACKETS = 64
_PROGRAM_MAP = 2
_FEW_MAPS = 1000
_H264_TYPES = frozenset({0x1B, 0x20, 0xDB})

# How far texts and elementary streams may be searched: what is past this, no prober looks at either.
_HEAD = 4096

_SCRIPTS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), what)
    for pattern, what in (
        (rb"ffconcat\b", "A concat script"),
        (rb"#EXTM3U|#EXTINF|#EXT-X-", "An M3U playlist"),
        (rb"v=0\s|[osctm]=\S*.*\n.*c=IN IP", "An SDP text"),
        (rb"\[playlist\]|\[reference\]", "A playlist"),
        (rb"<\?xml|<MPD\b|<asx\b|<smil\b|<SmoothStreamingMedia", "An XML manifest"),
        (rb"RTSPtext|rtsp://|rtmp://|https?://|file:", "A link"),
    )
)

_FIRST_BOXES = (
    b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"junk", b"udta",
    b"sidx", b"uuid", b"ediw", b"prfl",
)  # fmt: skip

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"FLV\x01", "flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"DKIF", "ivf"),
    (b"YUV4MPEG2 ", "yuv4mpegpipe"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"nut/multimedia container\x00", "nut"),
    (b".RMF", "rm"),
    (b"\xb7\xd8\x00\x20\x37\x49\xda\x11", "wtv"),
    (b"\x00\x00\x00\x00\x01\xbc", "gxf"),
    (b"\x1f\x07\x00", "dv"),
    (b"\x12\x00\x0a", "obu"),
    (b"BBCD", "dirac"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"\x00\x00\x01\xb0", "m4v"),
    (b"\x00\x00\x01\xb5", "m4v"),
    (b"\x00\x00\x01\x0f", "vc1"),
    (b"\xff\xd8\xff", "mjpeg"),
    (b"riff\x2e\x91\xcf\x11", "w64"),
    (b".snd", "au"),
    (b"caff", "caf"),
    (b"#!AMR", "amr"),
    (b"MAC ", "ape"),
    (b"TTA1", "tta"),
    (b"TTA2", "tta"),
    (b"wvpk", "wv"),
    (b"MP+", "mpc"),
    (b"MPCK", "mpc8"),
    (b"DSD ", "dsf"),
    (b"Creative Voice File\x1a", "voc"),
    (b"tBaK", "tak"),
    (b"\x7f\xfe\x80\x01", "dts"),
    (b"\x0b\x77", "ac3"),
)


def identify(data: Buffer) -> str:
    r"""Return FFmpeg's name of the container that `data` begins with.

    Args:
        data: an encoded file; only its first few KiB are looked at.

    Raises:
        InvalidMediaError: (a `ValueError`) empty, a script or playlist, or no container on the allow-list.

    >>> identify(b"RIFF\x24\x00\x00\x00WAVEfmt ")
    'wav'
    """
    head = bytes(data[:_HEAD])
    if not head:
        raise InvalidMediaError("Empty data is no media file.")
    name = _by_magic(head)
    if name is not None:
        return name
    # Before the structure is looked at: the byte order mark of UTF-16 could begin a frame of MPEG audio.
    text = head.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0").replace(b"\0", b"")
    for pattern, what in _SCRIPTS:
        if pattern.match(text):
            raise InvalidMediaError(f"{what} is not media: it names other files to open; refused.")
    name = _by_structure(head, data)
    if name is not None:
        return name
    raise InvalidMediaError("By its first bytes, not a media container that is known and allowed; refused.")


def admit(data: Buffer) -> str:
    """Return the container's name as `identify` does, once FFmpeg may open the bytes.

    Raises:
        InvalidMediaError: (a `ValueError`) also where a table or text claims so much that FFmpeg would take
            gigabytes for a few bytes, or says what makes it end the process.
    """
    name = identify(data)
    if name == "mov":
        entries = _claimed_entries(data)
        if entries > max(len(data), _FEW_ENTRIES):
            raise InvalidMediaError(f"The file claims {entries} samples in {len(data)} bytes; refused.")
    elif name in ("avi", "wav"):
        size = _claimed_texts(data)
        if size > max(len(data), _FEW_ENTRIES):
            raise InvalidMediaError(f"The file claims {size} bytes of texts in {len(data)}; refused.")
    elif _by_magic(bytes(data[:_HEAD])) is None:
        for pid, kinds in _stream_types(data).items():
            # FFmpeg asserts that nobody has opened another decoder for it by the time that it is H.264.
            if not _H264_TYPES.isdisjoint(kinds) and not _H264_TYPES.issuperset(kinds):
                raise InvalidMediaError(f"Stream {pid} becomes H.264, or was before, in mid-file; refused.")
    return name


def _claimed_entries(data: Buffer) -> int:
    """How many entries all tables of samples in an MP4 begin with, as far as its boxes can be followed."""
    total = 0
    inside = [boxes(data, 0, len(data))]
    for _ in range(_MOST_BOXES):
        while inside and (found := next(inside[-1], None)) is None:
            inside.pop()
        if not inside or found is None:
            break
        name, (begin, end) = found
        if name in _HOLDERS:
            inside.append(boxes(data, begin, min(end, len(data))))
        elif name in _COUNT_AT:
            begin += _COUNT_AT[name]
            total += int.from_bytes(data[begin : begin + 4], "big")
    return total


def _claimed_texts(data: Buffer) -> int:
    """The size of the largest list of texts (title, author) in a RIFF file, as far as it can be followed."""
    largest, at = 0, 12
    for _ in range(_MOST_BOXES):
        if at + 12 > len(data):
            break
        size, kind = int.from_bytes(data[at + 4 : at + 8], "little"), bytes(data[at + 8 : at + 12])
        if bytes(data[at : at + 4]) not in (b"LIST", b"RIFF"):
            at += 8 + size + size % 2
            continue
        largest = max(largest, size) if kind == b"INFO" else largest
        at += 8 + size + size % 2 if kind == b"movi" else 12
    return largest


def _stream_types(data: Buffer) -> dict[int, set[int]]:
    """What the program maps of a transport stream say that each elementary stream is.

    Raises:
        InvalidMediaError: (a `ValueError`) more maps than packets that could hold them.
    """
    types: dict[int, set[int]] = {}
    seen: set[bytes] = set()
    cut = 0
    for number, (at, begin) in enumerate(_program_maps(data)):
        length = 3 + ((data[begin + 1] & 0x0F) << 8 | data[begin + 2])
        cut += begin + length > at + _PACKET
        if number > max(_FEW_MAPS, len(data) // _PACKET) or cut > _MOST_BOXES:
            raise InvalidMediaError("The transport stream has more program maps than it can; refused.")
        for section in _sections(data, at, begin, length):
            if section not in seen:
                seen.add(section)
                for pid, kind in _streams(section):
                    types.setdefault(pid, set()).add(kind)
    return types


def _program_maps(data: Buffer) -> Iterator[tuple[int, int]]:
    """The packets in which a program map begins, and where in the file it does.

    Every byte that may begin a packet is looked at: where sync is lost nobody knows which FFmpeg will find.
    """
    import numpy as np

    whole = np.frombuffer(data, np.uint8)
    looked = 0
    for start in range(0, len(whole) - _PACKET + 1, _STRETCH):
        stretch = whole[start : min(start + _STRETCH, len(whole) - _PACKET + 1)]
        at = start + np.flatnonzero(stretch == _SYNC)
        at = at[(whole[at + 1] & 0x40 != 0) & (whole[at + 3] & 0x10 != 0)]  # begins something, has a payload
        begin = at + 4 + np.where(whole[at + 3] & 0x20, 1 + whole[at + 4].astype(np.int64), 0)
        at, begin = _within(at, begin)
        at, begin = _within(at, begin + 1 + whole[begin])
        while len(at):
            looked += len(at)
            if looked > max(_MOST_BOXES, len(whole) // 32):
                raise InvalidMediaError("The transport stream has more tables than it can; refused.")
            maps = whole[begin] == _PROGRAM_MAP
            yield from zip(at[maps].tolist(), begin[maps].tolist(), strict=True)
            length = (whole[begin + 1].astype(np.int64) & 0x0F) << 8 | whole[begin + 2]
            at, begin = _within(at, begin + 3 + length)


def _within(at: "npt.NDArray[np.int64]", begin: "npt.NDArray[np.int64]") -> tuple[Any, Any]:
    """Those of the packets in which there is room for a table at that place."""
    fits = begin + 3 <= at + _PACKET
    return at[fits], begin[fits]


def _payload(data: Buffer, at: int) -> tuple[int, int]:
    """Where the payload of the packet at an offset begins and ends."""
    begin = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
    return begin, at + _PACKET


def _sections(data: Buffer, at: int, begin: int, length: int) -> Iterator[bytes]:
    """A table that begins in the packet at an offset, as it goes on in packets of each size."""
    start = bytes(data[begin : min(at + _PACKET, begin + length)])
    if len(start) == length:
        yield start
        return
    for size in _PACKET_SIZES:
        section = start
        last = min(len(data) - _PACKET + 1, at + _MOST_PACKETS * size)
        for following in range(at + size, last, size):
            if len(section) >= length or data[following] != _SYNC:
                break
            if (data[following + 1] & 0x1F, data[following + 2]) == (data[at + 1] & 0x1F, data[at + 2]):
                first, end = _payload(data, following)
                section += bytes(data[first:end])
        yield section[:length]


def _streams(section: bytes) -> Iterator[tuple[int, int]]:
    """The PID and type of each stream in a program map, as far as it goes."""
    if len(section) < 12:
        return
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    while at + 5 <= len(section):
        yield (section[at + 1] & 0x1F) << 8 | section[at + 2], section[at]
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])


def boxes(data: Buffer, start: int, stop: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    r"""Yield the name of each box in a stretch of an MP4, and where its content begins and ends.

    The last may reach beyond the stretch. It ends at what can't be a box.

    >>> list(boxes(b"\0\0\0\x0cfree1234\0\0\0\x09mdat", 0, 20))
    [(b'free', (8, 12)), (b'mdat', (20, 21))]
    """
    while start + 8 <= stop:
        size, name = int.from_bytes(data[start : start + 4], "big"), bytes(data[start + 4 : start + 8])
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif size == 0:
            size = stop - start
        if size < head:
            return
        yield name, (start + head, start + size)
        start += size


def open_av(data: Buffer, *, options: Mapping[str, str] | None = None) -> "InputContainer":
    """Open encoded bytes with PyAV: in memory, allow-listed demuxers only, no protocols.

    The container is a context manager; close it.

    Args:
        data: an encoded file.
        options: more options for FFmpeg's demuxer.

    Raises:
        InvalidMediaError: (a `ValueError`) the bytes are refused by `admit`, or FFmpeg can't open them.
    """
    import av

    admit(data)
    try:
        return av.open(
            io.BytesIO(data),
            "r",
            options={**(options or {}), **AV_OPTIONS},
            metadata_errors="replace",
            buffer_size=1 << 17,
        )
    except (av.FFmpegError, ValueError, OSError, UnicodeError) as error:
        raise InvalidMediaError(f"Could not open the container: {_reason(error)}") from error


def video_stream(container: "InputContainer") -> "VideoStream":
    """Return the first video stream of an open container.

    Raises:
        InvalidMediaError: (a `ValueError`) it has none, or one of a codec that FFmpeg does not know.
    """
    if not container.streams.video:
        raise InvalidMediaError("No video stream found.")
    stream = container.streams.video[0]
    context: object = stream.codec_context  # None without a decoder, other than its type says
    if context is None:
        raise InvalidMediaError("The video stream is of an unknown codec.")
    return stream


def _reason(error: Exception) -> str:
    """The library's own words, without its reference to a file name that we never gave it."""
    return getattr(error, "strerror", None) or type(error).__name__


def _by_magic(head: bytes) -> str | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        form = head[8:12]
        if form == b"WAVE":
            return "wav"
        return "avi" if form in (b"AVI ", b"AVIX", b"AVI\x19", b"AMV ") else None
    if head[:4] == b"FORM":
        return {b"AIFF": "aiff", b"AIFC": "aiff", b"8SVX": "iff", b"16SV": "iff"}.get(head[8:12])
    if head[4:8] in _FIRST_BOXES:
        return "mov"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def _by_structure(head: bytes, data: Buffer) -> str | None:
    """Containers without a magic number at the first byte."""
    if head.startswith(b"ID3") and len(head) > 10:
        return _after_id3(head, data)
    if _is_transport_stream(head):
        return "mpegts"
    if head.startswith(b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02"):
        return "mxf"
    return _annex_b(head) or _raw_audio(head)


def _after_id3(head: bytes, data: Buffer) -> str | None:
    """The container behind an ID3v2 tag; FFmpeg skips the tag as well before it looks."""
    size = 10 + ((head[6] & 0x7F) << 21 | (head[7] & 0x7F) << 14 | (head[8] & 0x7F) << 7 | head[9] & 0x7F)
    rest = bytes(data[size : size + _HEAD])
    if rest.startswith(b"ID3"):
        return None
    name = _by_magic(rest)
    if name in {"flac", "ape", "tta", "wv", "mpc", "mpc8", "aiff", "wav", "ac3", "tak"}:
        return name
    return _raw_audio(rest)


def _is_transport_stream(head: bytes) -> bool:
    """Sync bytes at a packet's distance; the first packet may be cut, as in a capture from the air."""
    for packet in (188, 192, 204):
        for offset in range(packet):
            at = range(offset, min(len(head), offset + 8 * packet), packet)
            if len(at) >= (2 if offset in (0, 4) else 8) and all(head[position] == 0x47 for position in at):
                return True
    return False


def _raw_audio(head: bytes) -> str | None:
    """AAC or MP3 frames, behind padding if need be."""
    head = head.lstrip(b"\0")
    if _is_adts(head):
        return "aac"
    return "mp3" if _is_mpeg_audio(head) else None


def _is_adts(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 0xF < 13


def _is_mpeg_audio(head: bytes) -> bool:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    return version != 1 and layer != 0 and head[2] >> 4 != 15 and head[2] >> 2 & 3 != 3


# NAL units that may come first: H.264 non-IDR, IDR, SEI, SPS, PPS, AUD; HEVC VPS, SPS, PPS, AUD, SEI.
_H264_FIRST = {1, 5, 6, 7, 8, 9}
_HEVC_FIRST = {32, 33, 34, 35, 39}


def _annex_b(head: bytes) -> str | None:
    """Raw H.264 or HEVC: a start code, then a NAL unit that may begin a stream."""
    found = re.match(rb"\x00{2,8}\x01(..)", head, re.DOTALL)
    if found is None:
        return None
    first, second = found.group(1)
    if first & 0x81 == 0 and first >> 1 & 0x3F in _HEVC_FIRST and second & 0xF8 == 0 and second & 7:
        return "hevc"
    if first & 0x80 == 0 and first & 0x1F in _H264_FIRST:
        return "h264"
    return None
