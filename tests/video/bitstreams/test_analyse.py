"""What headers say of real streams: access points, disposable frames, and why a stream is refused."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mmmedia.video.decoders.bitstreams.analyse import analyse
from mmmedia.video.decoders.bitstreams.bits import BitTable, BitWriter
from mmmedia.video.decoders.bitstreams.h264_slices import read_list_changes
from mmmedia.video.decoders.bitstreams.structure import (
    DAMAGED,
    HIDDEN,
    INTERLACED,
    ORDER,
    PARAMETERS_CHANGE,
    UNSUPPORTED,
    CannotSeekError,
    Structure,
)
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.packets.index import PacketIndex
from mmmedia.video.decoders.shown import shown_frames
from support import corpus
from support.clips import clip
from support.corpus import x264, x265

OPEN_264 = x264("open-gop=1:keyint=17:min-keyint=17:scenecut=0:bframes=3:b-adapt=0")
OPEN_265 = x265("open-gop=1:keyint=16:min-keyint=16:scenecut=0:bframes=4:b-adapt=0")
ARRAYS = ("pts", "dts", "offset", "size", "key", "discard", "corrupt")
SIZE = {"frames": 60, "width": 96, "height": 64}
CODECS = ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "mpeg4"]


def packets(codec: str = "libx264", container: str = "matroska", **fields: Any) -> PacketIndex:
    defaults = corpus.SHAPES[codec][0] if codec in corpus.SHAPES else {}
    return index.build(clip(**{**SIZE, "codec": codec, "container": container, **defaults, **fields}))


def access_points(stream: PacketIndex) -> list[int]:
    """The access points of a stream, as numbers of frames in display order."""
    place = np.argsort(np.argsort(stream.pts))
    return place[analyse(stream).access_points].tolist()


def refusal(stream: PacketIndex) -> str:
    with pytest.raises(CannotSeekError) as error:
        analyse(stream)
    return str(error.value)


def change(stream: PacketIndex, position: int, edit: Callable[[bytearray], Any]) -> PacketIndex:
    """The stream with one packet changed; its new bytes stand behind the file's."""
    start, size = int(stream.offset[position]), int(stream.size[position])
    packet = bytearray(stream.data[start : start + size])
    edit(packet)
    offset, sizes = stream.offset.copy(), stream.size.copy()
    offset[position], sizes[position] = len(stream.data), len(packet)
    return dataclasses.replace(stream, data=stream.data + bytes(packet), offset=offset, size=sizes)


def put(at: int, value: bytes) -> Callable[[bytearray], Any]:
    def edit(packet: bytearray) -> None:
        packet[at : at + len(value)] = value

    return edit


def xor(at: int, mask: int) -> Callable[[bytearray], Any]:
    def edit(packet: bytearray) -> None:
        packet[at] ^= mask

    return edit


class TestAccessPoints:
    @pytest.mark.parametrize(
        ("codec", "fields", "expected"),
        [
            ("libx264", {}, [0, 20, 40]),
            ("libx264", {"container": "mp4"}, [0, 20, 40]),
            ("libx264", {"gop": 1}, range(60)),
            ("libx264", {"gop": 250}, [0]),
            ("libx264", OPEN_264, [0, 17, 34, 51]),
            ("libx264", {"bframes": 0, **x264("intra-refresh=1:keyint=15")}, [0]),
            ("libx264", x264("slices=4:keyint=25"), [0, 25, 50]),
            ("libx265", x265("keyint=20"), [0, 20, 40]),
            ("libx265", OPEN_265, [0, 16, 32, 48]),
            ("libx265", x265("no-open-gop=1:keyint=24:min-keyint=24:scenecut=0"), [0, 24, 48]),
            ("libx265", x265("repeat-headers=1:keyint=13"), [0, 13, 26, 39, 52]),
            ("libvpx-vp9", {}, [0, 20, 40]),
            ("libvpx-vp9", {"gop": 250}, [0]),
            ("libsvtav1", {}, [0, 20, 40]),
            ("libsvtav1", {"gop": 1}, range(60)),
            ("mpeg4", {}, [0, 20, 40]),
            ("mpeg4", {"gop": 250, "bframes": 2}, [0]),
        ],
        ids=str,
    )  # fmt: skip
    def test_where_decoding_may_start(self, codec: str, fields: dict[str, Any], expected: Any) -> None:
        """Key frames from which on all comes out: not those of an intra refresh, which are none."""
        assert access_points(packets(codec, **fields)) == list(expected)

    @pytest.mark.parametrize("codec", CODECS)
    def test_number_of_key_frames_alone_does_not_decide(self, codec: str) -> None:
        """A key flag that the container took away makes a packet no access point, or the stream refused."""
        stream = packets(codec)
        key = stream.key.copy()
        key[np.flatnonzero(key)[1]] = False
        try:
            assert access_points(dataclasses.replace(stream, key=key)) == [0, 40]
        except CannotSeekError as error:
            assert str(error) == DAMAGED  # noqa: PT017 - either is right


class TestDisposable:
    @pytest.mark.parametrize(
        ("codec", "fields"),
        [
            ("libx264", {}),
            ("libx264", x264("b-pyramid=normal:bframes=6:b-adapt=0:keyint=40")),
            ("libx264", x264("b-pyramid=strict:bframes=8:b-adapt=0:keyint=30:ref=5")),
            ("libx264", OPEN_264),
            ("libx265", x265("b-pyramid=1:bframes=8:b-adapt=0:keyint=32:rc-lookahead=20")),
            ("libx265", x265("temporal-layers=1:bframes=3:b-adapt=0:keyint=24")),
            ("mpeg4", {"bframes": 2}),
        ],
        ids=str,
    )
    def test_nothing_refers_to_them(self, codec: str, fields: dict[str, Any]) -> None:
        """Left out, the others come out as before, byte for byte; and they are many."""
        stream = packets(codec, **fields)
        disposable = analyse(stream).disposable
        assert disposable.sum() >= 20

        def decode(left_out: Any) -> dict[int, bytes]:
            decoder = stream.decoder()
            kept = [stream.packet(n) for n in range(len(stream)) if not left_out[n]]
            return {
                frame.pts: frame.to_ndarray().tobytes()
                for packet in [*kept, None]
                for frame in decoder.decode(packet)
            }

        whole, thin = decode(np.zeros(60, bool)), decode(disposable)
        assert len(whole) == 60
        assert len(thin) == 60 - disposable.sum()
        assert all(whole[pts] == pixels for pts, pixels in thin.items())

    @pytest.mark.parametrize("codec", ["libvpx-vp9", "libsvtav1"])
    def test_none_where_it_is_not_known(self, codec: str) -> None:
        """These codecs' headers do not say it in one place."""
        assert not analyse(packets(codec)).disposable.any()


class TestRefusals:
    def test_other_codecs(self) -> None:
        """A codec that the fast path does not know."""
        assert refusal(packets("wmv2", "asf")) == "codec"

    @pytest.mark.parametrize("order", ["tff", "bff"])
    def test_interlaced(self, order: str) -> None:
        """H.264 that may hold fields."""
        assert refusal(packets(**x264(f"{order}=1"))) == INTERLACED

    @pytest.mark.parametrize(
        ("codec", "raw", "other"),
        [
            ("libx264", "h264", x264("ref=5:keyint=17")),
            ("libx264", "h264", {"width": 128, "height": 96}),
            ("libx265", "hevc", x265("ctu=16:keyint=17")),
        ],
    )
    def test_parameter_sets_within_the_stream(self, codec: str, raw: str, other: dict[str, Any]) -> None:
        """A second encode behind the first brings parameters of its own along."""
        one, two = (clip(**{**SIZE, "codec": codec, "container": raw, **more}) for more in ({}, other))
        assert refusal(index.build(corpus.remux([one + two], "matroska"))) == PARAMETERS_CHANGE

    def test_second_av1_sequence(self) -> None:
        """AV1 of two sizes in one stream."""
        one, two = (
            clip(codec="libsvtav1", container="webm", frames=30, width=width, height=96)
            for width in (96, 128)
        )
        assert refusal(index.build(corpus.remux([one, two], "matroska"))) == PARAMETERS_CHANGE

    @pytest.mark.parametrize(("codec", "raw"), [("libx264", "h264"), ("libx265", "hevc")])
    def test_timestamps_in_order_of_decoding(self, codec: str, raw: str) -> None:
        """Timestamps that are not those of the display order that the headers give."""
        data = corpus.remux([clip(**SIZE, codec=codec, container=raw)], "matroska")
        assert refusal(index.build(data)) == ORDER

    @pytest.mark.parametrize("codec", ["libvpx-vp9", "libsvtav1"])
    def test_timestamps_not_ascending(self, codec: str) -> None:
        """These codecs show frames in the order in which they come."""
        stream = packets(codec)
        pts = stream.pts.copy()
        pts[[10, 11]] = pts[[11, 10]]
        assert refusal(dataclasses.replace(stream, pts=pts)) == ORDER

    def test_mpeg4_display_order(self) -> None:
        """A B-frame is shown between the references around it, and references in their order."""
        stream = packets("mpeg4", bframes=2)
        bi = np.flatnonzero(analyse(stream).disposable)
        for one, two in ((bi[0], bi[-1]), (0, 1)):
            pts = stream.pts.copy()
            pts[[one, two]] = pts[[two, one]]
            assert refusal(dataclasses.replace(stream, pts=pts)) == ORDER

    def test_h264_reference_left_out(self) -> None:
        """A gap in the frame numbers: a decoder would make frames up."""
        data = corpus.remux([clip(**SIZE, bframes=0)], "matroska", corpus.without({10}))
        assert refusal(index.build(data)) == DAMAGED


class TestHidden:
    def test_packed_mpeg4(self) -> None:
        """Two frames in a packet, and a placeholder after, as old encoders packed B-frames."""
        stream = packets("mpeg4", bframes=2)
        start, size = int(stream.offset[2]), int(stream.size[2])
        packed = change(stream, 1, lambda packet: packet.extend(stream.data[start : start + size]))
        assert refusal(packed) == HIDDEN

    def test_mpeg4_not_coded(self) -> None:
        """A placeholder, whose frame the one before stands in for."""
        stream = packets("mpeg4")
        bits = 5  # of 25 ticks a second

        def not_coded(packet: bytearray) -> None:
            at = packet.index(b"\0\0\1\xb6") + 4
            header = int.from_bytes(packet[at : at + 4], "big")
            # Kind, no more seconds, marker, time, marker, and then whether it is coded.
            header &= ~(1 << (31 - (2 + 1 + 1 + bits + 1)))
            packet[at : at + 4] = header.to_bytes(4, "big")

        assert refusal(change(stream, 7, not_coded)) == HIDDEN

    def test_mpeg4_without_a_frame(self) -> None:
        """A packet with no frame in it."""
        assert refusal(change(packets("mpeg4"), 3, put(0, bytes(64)))) == HIDDEN

    @pytest.mark.parametrize(("codec", "bit"), [("libvpx-vp9", 0b10), ("libvpx", 0b10000)])
    def test_frame_not_shown(self, codec: str, bit: int) -> None:
        """A packet whose frame is only referred to is kept, and known for what it is."""
        hidden = analyse(change(packets(codec), 5, xor(0, bit))).hidden
        assert hidden is not None
        assert np.flatnonzero(hidden).tolist() == [5]

    def test_vp9_superframe(self) -> None:
        """A hidden frame before the one shown, in one packet: whole it is fine, alone it is not."""
        stream = packets("libvpx-vp9")

        def superframe(packet: bytearray) -> None:
            one = bytes([packet[0] ^ 0b10]) + packet[1:]
            marker = bytes([0xC0 | 1 << 3 | 1])
            sizes = len(one).to_bytes(2, "little") + len(packet).to_bytes(2, "little")
            packet[:] = one + packet + marker + sizes + marker

        assert not analyse(change(stream, 0, superframe)).access_points[0]
        assert analyse(change(stream, 5, superframe)).access_points.sum() == 3

        def shown_twice(packet: bytearray) -> None:
            marker = bytes([0xC0 | 1 << 3 | 1])
            size = len(packet).to_bytes(2, "little")
            packet[:] = packet + packet + marker + size + size + marker

        assert refusal(change(stream, 5, shown_twice)) == HIDDEN

    def test_av1_frame_not_shown(self) -> None:
        """A temporal unit without a frame for display."""

        def hide(packet: bytearray) -> None:
            at = 1
            while packet[at] & 0x80:
                at += 1
            packet[at + 1] ^= 0x10

        stream = packets("libsvtav1")
        position = next(n for n in range(1, 60) if stream.data[int(stream.offset[n])] >> 3 == 6)
        assert refusal(change(stream, position, hide)) == HIDDEN


class TestDamaged:
    @pytest.mark.parametrize(
        ("codec", "fields", "position", "edit", "reason"),
        [
            ("libx264", {}, 3, put(0, b"\xff\xff\xff\xff"), DAMAGED),
            ("libx264", {}, 3, put(0, b"\0\0\0\1"), DAMAGED),
            ("libx264", {}, 3, xor(4, 0x80), UNSUPPORTED),
            ("libx264", {}, 3, put(4, b"\x14"), UNSUPPORTED),
            ("libx264", {}, 3, put(4, b"\x06"), DAMAGED),
            ("libx264", {}, 3, put(5, bytes(12)), DAMAGED),
            ("libx264", {}, 3, put(5, b"\x40"), DAMAGED),
            ("libx264", {}, 3, lambda packet: packet.extend(b"\0\0"), DAMAGED),
            ("libx264", x264("slices=4"), 3, lambda packet: packet.extend(bytes(packet)), DAMAGED),
            ("libx265", {}, 3, put(0, b"\xff\xff\xff\xff"), DAMAGED),
            ("libx265", {}, 3, xor(4, 0x80), UNSUPPORTED),
            ("libx265", {}, 3, xor(5, 0x08), UNSUPPORTED),
            ("libx265", {}, 3, put(4, b"\x50"), DAMAGED),
            ("libx265", {}, 3, put(4, b"\x52"), UNSUPPORTED),
            ("libx265", {}, 3, xor(6, 0x80), DAMAGED),
            ("libx265", {}, 3, put(6, bytes(20)), DAMAGED),
            ("libvpx-vp9", {}, 3, put(0, b"\0"), DAMAGED),
            ("libvpx-vp9", {}, 3, put(0, b"\xb8"), DAMAGED),
            ("libvpx-vp9", {}, 0, put(1, b"\0\0\0"), DAMAGED),
            ("libvpx-vp9", {}, 0, xor(0, 0b100), DAMAGED),
            ("libvpx-vp9", {}, 3, lambda packet: packet.extend(b"\xc1\0\0\xc1"), DAMAGED),
            ("libsvtav1", {}, 3, xor(0, 0x80), DAMAGED),
            ("libsvtav1", {}, 3, put(1, b"\x7f"), DAMAGED),
            ("libsvtav1", {}, 3, put(0, b"\x16\x18"), UNSUPPORTED),
            ("mpeg4", {}, 3, xor(4, 0x40), DAMAGED),
            ("mpeg4", {}, 3, xor(4, 0x80), UNSUPPORTED),
            ("mpeg4", {}, 3, lambda packet: packet.__delitem__(slice(4, None)), DAMAGED),
            ("mpeg4", {}, 3, put(4, b"\x7f\xff\xff\xff"), DAMAGED),
        ],
    )  # fmt: skip
    def test_packet(
        self, codec: str, fields: dict[str, Any], position: int, edit: Callable[[bytearray], Any], reason: str
    ) -> None:
        """Headers that don't fit, in one packet of sixty."""
        assert refusal(change(packets(codec, **fields), position, edit)) == reason

    @pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
    @pytest.mark.parametrize("length", [0, 3, 6, 10, 22])
    def test_extradata_cut_short(self, codec: str, length: int) -> None:
        """Too little about the stream in the container's header."""
        stream = packets(codec)
        assert refusal(dataclasses.replace(stream, extradata=stream.extradata[:length])) in {
            DAMAGED,
            UNSUPPORTED,
        }

    @pytest.mark.parametrize("codec", CODECS)
    @given(data=st.data())
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_noise_is_a_refusal_or_a_structure(self, codec: str, data: st.DataObject) -> None:
        """Whatever the first bytes of packets and the extradata are: never another error."""
        stream = packets(codec)
        for _ in range(data.draw(st.integers(1, 3))):
            noise = data.draw(st.binary(min_size=1, max_size=8))
            stream = change(stream, data.draw(st.integers(0, 59)), put(data.draw(st.integers(0, 24)), noise))
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, max(0, len(stream.extradata) - 1)))
            noise = data.draw(st.binary(min_size=1, max_size=3))
            extradata = stream.extradata[:at] + noise + stream.extradata[at + len(noise) :]
            stream = dataclasses.replace(stream, extradata=extradata)
        try:
            structure = analyse(stream)
        except CannotSeekError as error:
            assert str(error) in {DAMAGED, HIDDEN, INTERLACED, ORDER, PARAMETERS_CHANGE, UNSUPPORTED}  # noqa: PT017
        else:
            assert isinstance(structure, Structure)
            assert len(structure.access_points) == len(structure.disposable) == 60

    @pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
    def test_frames_that_a_decoder_leaves_out_are_refused(self, codec: str) -> None:
        """Where damage to a header costs a frame, later ones would shift: the headers show it."""
        rng = random.Random(codec)
        whole = packets(codec)
        lost = refused = 0
        for _ in range(40):
            position, at, bit = rng.randrange(1, 60), rng.randrange(4, 8), 1 << rng.randrange(8)
            stream = change(whole, position, xor(at if codec != "libvpx-vp9" else at - 4, bit))
            decoder, frames = stream.decoder(), 0
            for packet in [*(stream.packet(n) for n in range(60)), None]:
                try:
                    frames += len(decoder.decode(packet))
                except av.FFmpegError:
                    continue
            if frames != shown_frames(stream).total:
                lost += 1
                with pytest.raises(CannotSeekError):
                    analyse(stream)
                refused += 1
        assert lost == refused > 0


@pytest.mark.parametrize(("value", "is_bad"), [(0, False), (15, False), (16, True), (70_000, True)])
def test_h264_lists_refer_to_numbers_that_exist(value: int, is_bad: bool) -> None:
    """Where they don't, a decoder drops the slice, and its threads decide what stands there instead."""
    writer = BitWriter()
    writer.u(1, 1)
    writer.ue(0)
    writer.ue(value)
    writer.ue(3)
    table = BitTable(np.frombuffer(writer.finish().ljust(16, b"\0"), np.uint8).reshape(1, -1))
    read_list_changes(table, np.array([True]), 16)
    assert table.bad.tolist() == [is_bad]


RICH_264 = x264("cqm=jvt:overscan=crop:chromaloc=2:sar=3/7:videoformat=pal:colorprim=bt709:nal-hrd=vbr"
                ":vbv-maxrate=500:vbv-bufsize=500:pic-struct=1:keyint=15:bframes=2")  # fmt: skip


def test_headers_that_say_all_they_can() -> None:
    """Matrices, an aspect ratio of its own, overscan, the places of chroma: nothing of it is in the way."""
    assert access_points(packets(frames=40, **RICH_264)) == [0, 15, 30]


@pytest.mark.parametrize(
    ("codec", "how"),
    [
        ("libx264", RICH_264),
        ("libx265", x265("temporal-layers=1:bframes=3:b-adapt=0:keyint=10")),
        ("libsvtav1", {}),
        ("libvpx", {}),
        ("libvpx-vp9", {}),
        ("mpeg4", {"bframes": 2}),
        ("mpeg2video", {"bframes": 2}),
    ],
)
def test_any_bit_may_be_wrong(codec: str, how: Any) -> None:
    """Headers with one wrong bit are read, or refused; there is no third."""
    stream = packets(codec, frames=12, **how)
    whole = analyse(stream)
    answers = set()
    for bit in range(8 * min(len(stream.extradata), 100)):
        extradata = bytearray(stream.extradata)
        extradata[bit // 8] ^= 128 >> bit % 8
        answers.add(_answer(dataclasses.replace(stream, extradata=bytes(extradata))))
    for position in (0, 1, int(np.argmin(stream.display_order))):
        for bit in range(8 * min(int(stream.size[position]), 30)):
            answers.add(_answer(change(stream, position, xor(bit // 8, 128 >> bit % 8))))
    for length in range(min(len(stream.extradata), 100)):
        answers.add(_answer(dataclasses.replace(stream, extradata=stream.extradata[:length])))
    for length in range(min(int(stream.size[1]), 40)):
        answers.add(
            _answer(change(stream, 1, lambda packet, length=length: packet.__delitem__(slice(length, None))))
        )
    assert len(whole.access_points) == len(stream)
    assert {"read"} < answers


def _answer(stream: PacketIndex) -> str:
    try:
        structure = analyse(stream)
    except CannotSeekError as error:
        return str(error)
    assert len(structure.access_points) == len(structure.ranks) == len(stream)
    return "read"
