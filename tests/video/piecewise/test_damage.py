"""Files whose tables are damaged, byte by byte: read in pieces, or refused with an error of ours."""

import re

import pytest

from mmmedia.errors import MediaError
from mmmedia.sources.window import Window
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.piecewise.layout import CannotTellError
from mmmedia.video.piecewise.parts import open_video, read_parts
from support.layouts import LAYOUTS, Far, Near, laid_out

NAMES = re.compile(
    rb"moov|mvhd|trak|tkhd|mdia|hdlr|minf|stbl|stsd|stts|stss|stsc|stsz|stco|ctts|edts|elst|mvex|trex|moof|mfhd"
    rb"|traf|tfhd|tfdt|trun|sidx|mfra|tfra|mfro|mdat"
    # Of Matroska: the header, segment, index of indices, info, tracks, cues, tags, clusters.
    rb"|\x1a\x45\xdf\xa3|\x18\x53\x80\x67|\x11\x4d\x9b\x74|\x15\x49\xa9\x66|\x16\x54\xae\x6b|\x1c\x53\xbb\x6b"
    rb"|\x12\x54\xc3\x67|\x1f\x43\xb6\x75"
)


def answer(data: bytes, kind: type[Near]) -> str:
    try:
        video = open_video(Window(kind(data)))
        wanted = [number for number in (0, 5, 23) if number < video.shown.total]
        parts = read_parts(video, wanted)
    except (MediaError, CannotTellError, CannotSeekError) as error:
        return str(error)
    assert len(video.packets) == len(video.layout.size)
    assert len(parts.rows) == len(wanted)
    return "read"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_byte_of_a_table_may_be_wrong(layout: str) -> None:
    data = laid_out(layout, frames=24, width=32, height=32)
    assert answer(data, Near) == answer(data, Far) == "read"
    places = {
        at + more for match in NAMES.finditer(data) for at in (match.start(),) for more in range(-4, 28)
    }
    answers = set()
    for number, at in enumerate(sorted(place for place in places if 0 <= place < len(data))):
        damaged = bytearray(data)
        damaged[at] ^= (0xFF, 0x80, 0x01)[number % 3]
        answers.add(answer(bytes(damaged), (Near, Far)[number // 3 % 2]))
    assert {"read"} < answers


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_may_end_anywhere(layout: str) -> None:
    data = laid_out(layout, frames=24, width=32, height=32)
    for number, length in enumerate(range(0, len(data), max(len(data) // 80, 1))):
        assert answer(data[:length], (Near, Far)[number % 2])
