r"""Which container a file is, by its first bytes; what names other files is none.

>>> identify(b"\x1aE\xdf\xa3" + bytes(28))
'matroska'
>>> identify(b"ffconcat version 1.0\nfile /etc/passwd")
Traceback (most recent call last):
    ...
mmmedia.errors.InvalidMediaError: A concat script is not media: it names other files to open; refused.
"""

import re

from mmmedia.containers.mp4_boxes import Buffer
from mmmedia.containers.transport_stream import is_transport_stream
from mmmedia.errors import InvalidMediaError

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
    name = by_magic(head)
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
    raise InvalidMediaError(
        f"By its first bytes, not a media container that is known and allowed; refused.{described(head)}"
    )


_NO_MEDIA: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), what)
    for pattern, what in (
        (rb"<!doctype html|<html|<head|<!--", "an HTML page: a server's error or sign-in page?"),
        (rb"version https://git-lfs\.", "a pointer of Git LFS: the file itself is fetched by `git lfs pull`"),
        (rb"<\?xml|<error", "an XML text: a server's error message?"),
        (rb"[{\[]\s*[\"\[{\]}]", "a JSON text: a server's error message?"),
        (rb"%PDF-", "a PDF"),
        (rb"PK\x03\x04", "a ZIP archive"),
        (rb"\x1f\x8b", "compressed by gzip"),
    )
)


def described(head: bytes) -> str:
    """Return a sentence on what is no media at all, to be put behind another; empty where it is not known.

    >>> described(b"<!DOCTYPE html><title>Sign in</title>")
    " It is an HTML page: a server's error or sign-in page?"
    """
    text = bytes(head[:_HEAD]).lstrip(b"\xef\xbb\xbf \t\r\n")
    for pattern, what in _NO_MEDIA:
        if pattern.match(text):
            return f" It is {what}" if what.endswith("?") else f" It is {what}."
    return ""


def by_magic(head: Buffer) -> str | None:
    """Return the name of a container that has a magic number at its first bytes."""
    head = bytes(head[:_HEAD])
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
    """Return the name of a container that has no magic number at its first byte."""
    if head.startswith(b"ID3") and len(head) > 10:
        return _after_id3(head, data)
    if is_transport_stream(head):
        return "mpegts"
    if head.startswith(b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02"):
        return "mxf"
    return _annex_b(head) or _raw_audio(head)


def _after_id3(head: bytes, data: Buffer) -> str | None:
    """Return the name of the container behind an ID3v2 tag; FFmpeg skips the tag as well before it looks."""
    size = 10 + ((head[6] & 0x7F) << 21 | (head[7] & 0x7F) << 14 | (head[8] & 0x7F) << 7 | head[9] & 0x7F)
    rest = bytes(data[size : size + _HEAD])
    if rest.startswith(b"ID3"):
        return None
    name = by_magic(rest)
    if name in {"flac", "ape", "tta", "wv", "mpc", "mpc8", "aiff", "wav", "ac3", "tak"}:
        return name
    return _raw_audio(rest)


def _raw_audio(head: bytes) -> str | None:
    """Return the name of AAC or MP3 frames, behind padding if need be."""
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
    """Return the name of raw H.264 or HEVC: a start code, then a NAL unit that may begin a stream."""
    found = re.match(rb"\x00{2,8}\x01(..)", head, re.DOTALL)
    if found is None:
        return None
    first, second = found.group(1)
    if first & 0x81 == 0 and first >> 1 & 0x3F in _HEVC_FIRST and second & 0xF8 == 0 and second & 7:
        return "hevc"
    if first & 0x80 == 0 and first & 0x1F in _H264_FIRST:
        return "h264"
    return None
