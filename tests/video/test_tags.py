"""What the codec tag of a container says to a decoder must reach the excerpt."""

import io

import av
import numpy as np
import pytest

from mmmedia.errors import NotSeekableError
from mmmedia.video import OpenCVVideoBackend, excerpt
from support.clips import picture


def film(codec: str, container: str, pix_fmt: str, *, tag: str | None = None, **options: str) -> bytes:
    """40 frames, of the codec's tag in that container or another."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pix_fmt
        stream.codec_context.gop_size = 10
        if tag:
            stream.codec_context.codec_tag = tag
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(picture(number, 128, 96), format="rgb24")
            out.mux(stream.encode(frame.reformat(format=pix_fmt)))
        out.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("codec", "container", "pix_fmt", "decoded"),
    [
        ("prores_ks", "mov", "yuv422p10le", "yuv422p10le"),
        ("prores_ks", "mov", "yuv444p10le", "yuv444p12le"),
        ("prores_ks", "matroska", "yuva444p10le", "yuva444p12le"),
        ("utvideo", "avi", "gbrp", "gbrp"),
        ("utvideo", "avi", "yuv422p", "yuv422p"),
    ],
)
def test_the_pixel_format_is_kept(codec: str, container: str, pix_fmt: str, decoded: str) -> None:
    """ProRes has 12 bits by the tag alone, and Ut Video an alpha channel: the excerpt is decoded likewise."""
    data = film(codec, container, pix_fmt)
    fast, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=5, decode="seek")
    slow, same = OpenCVVideoBackend.load_bytes(data, num_frames=5, decode="sequential")
    assert np.array_equal(fast, slow)
    assert metadata == same
    with av.open(io.BytesIO(excerpt(data, [3, 30]).data)) as container_of_part:
        assert container_of_part.streams.video[0].codec_context.pix_fmt == decoded


def test_an_encoder_known_by_the_tag_alone() -> None:
    """FFmpeg decodes by XviD's transform where the tag says XVID and the stream names no encoder."""
    anonymous = film("mpeg4", "avi", "yuv420p", tag="XVID", flags="+bitexact")
    with pytest.raises(NotSeekableError, match="unusual coding tools"):
        OpenCVVideoBackend.load_bytes(anonymous, num_frames=5, decode="seek")
    named = film("mpeg4", "avi", "yuv420p", tag="XVID")
    fast, _ = OpenCVVideoBackend.load_bytes(named, num_frames=5, decode="seek")
    assert np.array_equal(fast, OpenCVVideoBackend.load_bytes(named, num_frames=5, decode="sequential")[0])
