"""What a file claims: more than it can hold is refused before FFmpeg sees it."""

import pytest

from mmmedia import containers
from mmmedia.containers import claims
from mmmedia.errors import InvalidMediaError
from mmmedia.video.loaders import OpenCVVideoBackend
from support.clips import clip
from support.streams import AAC, H264, MPEG2, Packets, packet, program_map, sound_that_becomes_h264


def _box(name: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + name + content


def test_tables_that_claim_more_than_there_can_be_are_refused() -> None:
    """FFmpeg would take a gigabyte for the samples that these few bytes claim (found by the fuzz session)."""
    start = _box(b"ftyp", b"isom\0\0\2\0isomiso5")

    def run(count: int) -> bytes:
        return start + _box(b"moof", _box(b"traf", _box(b"trun", bytes(4) + count.to_bytes(4, "big"))))

    assert containers.admit(run(1 << 22)).name == "mov"
    with pytest.raises(InvalidMediaError, match="claims 83886080 samples"):
        containers.admit(run(5 << 24))
    many = start + _box(b"moof", _box(b"traf", _box(b"trun", bytes(4) + (1 << 21).to_bytes(4, "big")) * 3))
    with pytest.raises(InvalidMediaError, match="claims"):
        containers.admit(many)
    sizes = _box(b"stsz", bytes(8) + (1 << 30).to_bytes(4, "big"))
    for holder in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        sizes = _box(holder, sizes)
    with pytest.raises(InvalidMediaError, match="claims"):
        containers.admit(start + sizes)


def test_boxes_without_end_are_not_followed_without_end() -> None:
    start = _box(b"ftyp", b"isom\0\0\2\0isomiso5")
    assert containers.admit(start + b"\0\0\0\x08moov" * 300_000).name == "mov"
    nested = b"".join((8 * (50_000 - depth)).to_bytes(4, "big") + b"moov" for depth in range(50_000))
    assert containers.admit(start + nested).name == "mov"


@pytest.mark.parametrize("size", [188, 192, 204])
def test_streams_that_become_h264_are_refused(size: int) -> None:
    """FFmpeg ends the process on some of these (found by the fuzz session)."""

    def stream(*packets: bytes) -> bytes:
        filler = [packet(b"\0" * 184, 0x100, starts=False)] * 16
        return b"".join(each.ljust(size, b"\0") for each in [*filler, *packets, *filler])

    def map_packet(*streams: tuple[int, int]) -> bytes:
        return packet(b"\0" + program_map(*streams))

    first, second = map_packet((256, MPEG2), (257, AAC)), map_packet((256, H264))
    for intact in (
        [first, first], [second, second], [first, map_packet((256, 0x24))],
        [first, map_packet((258, H264))], [map_packet((256, H264)), map_packet((256, 0x20))],
    ):  # fmt: skip
        assert containers.admit(stream(*intact)).name == "mpegts"

    whole = program_map(*((number, AAC) for number in range(300, 360)), (256, H264), padding=90)
    cut = [packet(b"\0" + whole[:183])]
    cut += [packet(whole[at : at + 184], starts=False) for at in range(183, len(whole), 184)]
    for changed in (
        [first, second],
        [second, first],
        [packet(b"\0" + program_map((256, MPEG2)) + program_map((256, H264)))],
        [first, packet(b"\3abc" + program_map((256, H264)))],
        [first, packet(b"\0" + program_map((256, H264)), stuffing=20)],
        [first, *cut],
        [first, cut[0], packet(b"", 0x222), *cut[1:]],
        [first, b"lost sync", second],
    ):
        with pytest.raises(InvalidMediaError, match=r"Stream 256 becomes H\.264"):
            containers.admit(stream(*changed))


class TestLateMaps:
    """Streams that begin before FFmpeg knows that they are H.264, and are something else by then."""

    NULLS = Packets.NULL * 27_000

    def is_admitted(self, *parts: bytes) -> bool:
        try:
            return containers.admit(b"".join(parts)).name == "mpegts"
        except InvalidMediaError as error:
            if "becomes H.264" not in str(error):
                raise
            return False

    @pytest.mark.parametrize("told", [False, True])
    def test_a_stream_that_is_something_else_first_is_refused(self, told: bool) -> None:
        assert not self.is_admitted(sound_that_becomes_h264(told=told))

    @pytest.mark.parametrize("padding", [0, 300], ids=["one packet", "several"])
    def test_what_is_told_in_time_is_admitted(self, padding: int) -> None:
        make = Packets()
        begun, told = make.sound(bytes(500), 0, 256), make.map((256, H264), (257, AAC), padding=padding)
        for parts in (
            (make.programs(), told, begun, self.NULLS, told, begun),
            (begun, make.programs(), told, self.NULLS, begun),  # as where a recording begins
            (b"\xff" * 100, begun, make.programs(), told, self.NULLS, begun),  # a first packet that is cut
            (self.NULLS, make.programs(), told, begun),  # a stream that comes later
            (begun, self.NULLS, make.programs(), make.map((257, AAC))),
        ):
            assert self.is_admitted(*parts)
        wide = b"".join(
            each[at : at + 188].ljust(204, b"\0")
            for each in (begun, make.programs(), told, self.NULLS)
            for at in range(0, len(each), 188)
        )
        assert self.is_admitted(wide)

    def test_what_may_not_be_read_tells_nothing(self) -> None:
        """A checksum that is wrong, a map of no program, one not yet in force, one where no packet begins."""
        make = Packets()
        begun, programs, told = make.sound(bytes(500), 0, 256), make.programs(), make.map((256, H264))
        end = (self.NULLS, make.programs(), make.map((256, H264)))
        wrong = told[:-4] + b"crc!"
        later = bytearray(told)
        later[later.index(b"\0\1\xc1") + 2] ^= 1
        assert not self.is_admitted(begun, *end)
        assert not self.is_admitted(begun, programs, wrong, *end)
        assert not self.is_admitted(begun, told, *end)
        assert not self.is_admitted(begun, programs, bytes(later), *end)
        assert not self.is_admitted(Packets.NULL * 8, begun, programs, b"x" * 40, told, *end)
        assert self.is_admitted(begun, programs, told, *end)

    def test_many_tables_are_not_read_for_ever(self) -> None:
        make = Packets()
        tables = b"".join(make.map((300 + number, AAC)) for number in range(1200))
        begun, end = make.sound(bytes(500), 0, 256), (make.map((256, H264)), self.NULLS)
        assert self.is_admitted(begun, make.programs(), tables[: 900 * 188], *end)
        assert not self.is_admitted(begun, make.programs(), tables, *end)


def test_texts_that_claim_more_than_there_can_be_are_refused() -> None:
    """FFmpeg would take two gigabytes for a title that is not there (found by the fuzz session)."""

    def file(size: int, kind: bytes = b"AVI ") -> bytes:
        header = b"LIST" + (4 + 8 + 2).to_bytes(4, "little") + b"hdrlJUNK\x02\0\0\0ab"
        frames = b"LIST" + (4 + 8).to_bytes(4, "little") + b"movi00dc\0\0\0\0"
        body = header + frames + b"LIST" + size.to_bytes(4, "little") + b"INFOINAM\x02\0\0\0a\0"
        return b"RIFF" + len(body).to_bytes(4, "little") + kind + body

    assert containers.admit(file(14)).name == "avi"
    assert containers.admit(file(1 << 20)).name == "avi"  # cut short, perhaps
    for kind in (b"AVI ", b"WAVE"):
        with pytest.raises(InvalidMediaError, match="claims 2147483674 bytes of texts"):
            containers.admit(file((1 << 31) + 26, kind))


def test_a_file_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of loading a video takes what the first of them has admitted."""
    judged = []
    real = claims.identify
    monkeypatch.setattr(claims, "identify", lambda data: judged.append(len(data)) or real(data))
    data = clip(frames=40, width=64, height=64)
    for options in ({}, {"decode": "seek"}, {"backend": "pyav"}, {"backend": "pyav", "decode": "sequential"}):
        judged.clear()
        OpenCVVideoBackend.load_bytes(data, num_frames=4, **options)
        assert judged == [len(data)]
    admitted = containers.admit(data)
    judged.clear()
    assert containers.admit(admitted) is admitted
    with containers.open_av(admitted) as container:
        assert containers.video_stream(container).width == 64
    assert not judged
    assert repr(admitted) == "Admitted(name='mov')"
