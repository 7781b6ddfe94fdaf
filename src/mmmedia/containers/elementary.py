r"""Raw streams of pictures, told by their start codes, also where they begin in the midst of a picture.

>>> within(b"\x5a" + 3 * b"\x00\x00\x01\xb6\x50")
'm4v'
"""

import re

from mmmedia.containers.mp4_boxes import Buffer

# A picture of the largest that raw streams hold may be cut before the first start code.
_FAR = 1 << 20
_CODES = re.compile(rb"\x00\x00\x01(..)", re.DOTALL)
_LEAST_CODES, _MOST_CODES = 3, 64

# What may follow: MPEG-4's objects, layers, headers and planes; MPEG-2's pictures, slices and headers.
_MPEG4 = frozenset([*range(0x30), *range(0xB0, 0xB7)])
_MPEG4_PLANE = 0xB6
_MPEG2 = frozenset([*range(0xB0), 0xB2, 0xB3, 0xB5, 0xB7, 0xB8])
_MPEG2_PICTURE = frozenset([0, 0xB5, 1])  # its header, the header's extension, its first slice
# NAL units of H.264 that others refer to, or not, or either; and those of HEVC.
_H264_REFERRED, _H264_NEVER, _H264_SLICES = {5, 7, 8}, {6, 9, 10, 11, 12}, {1, 5}
_HEVC_SLICES = {*range(10), *range(16, 22)}
_HEVC_OTHERS = set(range(32, 41))


def within(data: Buffer) -> str | None:
    """Return FFmpeg's name of a raw stream of H.264, HEVC, MPEG-4 or MPEG-2, wherever in it the data begins.

    Its first three start codes or more must all be such a stream's, and a picture's among them.
    """
    codes = []
    for found in _CODES.finditer(bytes(data[:_FAR])):
        codes.append(found[1])
        if len(codes) == _MOST_CODES:
            break
    if len(codes) < _LEAST_CODES:
        return None
    firsts = {code[0] for code in codes}
    if _MPEG4_PLANE in firsts and firsts <= _MPEG4:
        return "m4v"
    if _MPEG2_PICTURE <= firsts <= _MPEG2:
        return "mpegvideo"
    if all(map(_is_hevc, codes)) and any(code[0] >> 1 in _HEVC_SLICES for code in codes):
        return "hevc"
    if all(map(_is_h264, codes)) and any(code[0] & 0x1F in _H264_SLICES and code[0] >> 5 for code in codes):
        return "h264"
    return None


def _is_hevc(unit: bytes) -> bool:
    first, second = unit
    kind = first >> 1
    return first & 0x81 == 0 and second & 0xF8 == 0 and second != 0 and kind in _HEVC_SLICES | _HEVC_OTHERS


def _is_h264(unit: bytes) -> bool:
    first = unit[0]
    kind, importance = first & 0x1F, first >> 5
    if first & 0x80:
        return False
    return (
        kind == 1 or (kind in _H264_REFERRED and importance > 0) or (kind in _H264_NEVER and not importance)
    )
