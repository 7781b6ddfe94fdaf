"""Pictures that are spared the decoding: what refers to what in H.264, and what stands in for the rest."""

import random

import av
import numpy as np
import pytest
from hypothesis import given, strategies as st

from mmmedia.video.decoders import clips, plan
from mmmedia.video.decoders.bitstreams import h264
from mmmedia.video.decoders.bitstreams.analyse import analyse
from mmmedia.video.decoders.bitstreams.bits import BitReader, BitWriter, escape, unescape
from mmmedia.video.decoders.bitstreams.structure import Structure
from mmmedia.video.decoders.packets import index
from mmmedia.video.loaders import OpenCVVideoBackend
from support.clips import clip

PYRAMID = "ref=1:b-pyramid=normal:b-adapt=0:scenecut=0:weightp=0:bframes={}"


def structure_of(data: bytes) -> tuple[index.PacketIndex, Structure]:
    packets = index.build(data)
    return packets, analyse(packets)


@pytest.mark.parametrize("bframes", [3, 5, 8])
def test_stored_pictures_nobody_needs_are_spared(bframes: int) -> None:
    """With one reference a P-picture, only the B-pyramid next to a wanted frame must be decoded."""
    packets, structure = structure_of(clip(gop=60, options={"x264-params": PYRAMID.format(bframes)}))
    assert structure.references is not None
    stored_b = np.flatnonzero(structure.references.kept & structure.references.has_b)
    assert len(stored_b) > 5
    last = int(np.argmax(packets.pts))
    spared = structure.references.replaceable(0, len(packets), [last])
    assert len(spared) >= len(stored_b) - 2
    assert spared <= set(stored_b.tolist())


def test_what_is_wanted_is_never_spared() -> None:
    """Nor is what it refers to: with every frame wanted, all are decoded."""
    packets, structure = structure_of(clip(gop=60, options={"x264-params": PYRAMID.format(3)}))
    assert structure.references is not None
    assert structure.references.replaceable(0, len(packets), range(len(packets))) == set()


def test_nothing_is_spared_after_an_access_point_that_forgets_nothing() -> None:
    """An open group's first picture does not empty the store, so what is stored then is not known."""
    packets, structure = structure_of(
        clip(
            frames=90,
            container="matroska",
            options={
                "x264-params": "open-gop=1:keyint=30:min-keyint=30:scenecut=0:bframes=3:b-adapt=0:ref=1"
            },
        )
    )
    assert structure.references is not None
    second = int(np.flatnonzero(structure.access_points)[1])
    assert structure.references.replaceable(second, len(packets), [len(packets) - 1]) == set()


def test_stand_ins_leave_the_store_as_it_was() -> None:
    """A stream in which every spared picture is a stand-in decodes without an error, frame for frame."""
    packets, structure = structure_of(clip(gop=60, options={"x264-params": PYRAMID.format(3)}))
    references = structure.references
    assert references is not None
    last = len(packets) - 1
    spared = references.replaceable(0, len(packets), [last])
    decoder = packets.decoder(structure.extradata)
    decoder.options = {"err_detect": "explode"}
    shown = []
    for position in range(len(packets)):
        if not structure.disposable[position] or position == last:
            payload = references.stand_in(position) if position in spared else None
            shown += [frame.pts for frame in decoder.decode(packets.packet(position, payload))]
    shown += [frame.pts for frame in decoder.decode(None)]
    kept = ~structure.disposable
    kept[last] = True
    assert spared
    assert shown == sorted(packets.pts[kept].tolist())


def random_parameters(rng: random.Random) -> str:
    choices = {
        "ref": [1, 1, 2, 4],
        "bframes": [2, 3, 5, 8],
        "keyint": [20, 60],
        "b-pyramid": ["normal", "normal", "strict"],
        "weightp": [0, 1, 2],
        "weightb": [0, 1],
        "direct": ["spatial", "temporal", "auto"],
        "b-adapt": [0, 1],
        "slices": [0, 3],
        "cabac": [0, 1],
        "scenecut": [0, 40],
        "8x8dct": [0, 1],
    }
    return ":".join(f"{name}={rng.choice(values)}" for name, values in choices.items())


@pytest.mark.parametrize("seed", range(12))
def test_frames_are_those_of_the_reference(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever x264 does with references: seeking, with pictures spared, gives the bytes of one pass."""
    monkeypatch.setattr(plan, "_SHORT", 0)
    rng = random.Random(seed)
    pix_fmt = rng.choice(["yuv420p", "yuv420p", "yuv444p", "yuv420p10le", "gray"])
    data = clip(
        frames=90,
        width=96,
        height=64,
        pix_fmt=pix_fmt,
        options={"x264-params": random_parameters(rng)},
    )
    for number in (1, 2, 5):
        wanted = sorted(rng.sample(range(90), number))
        loader = picking(wanted)
        fast, fast_metadata = loader.load_bytes(data, decode="seek")
        slow, slow_metadata = loader.load_bytes(data, decode="sequential")
        assert fast_metadata == slow_metadata
        assert fast.tobytes() == slow.tobytes()


def picking(wanted: list[int]) -> type[OpenCVVideoBackend]:
    class Picking(OpenCVVideoBackend):
        @classmethod
        def compute_frames_index_to_sample(
            cls, source: object, target: object, **kwargs: object
        ) -> list[int]:
            return wanted

    return Picking


def test_spared_pictures_are_not_counted_as_decoded() -> None:
    """The counter of decoded frames says what sparing saves."""
    packets, structure = structure_of(clip(gop=60, options={"x264-params": PYRAMID.format(3)}))
    assert structure.references is not None
    last = int(np.argmax(packets.pts))
    spared = structure.references.replaceable(0, last + 1, [last])
    spans = plan.plan_spans([last], structure.ranks, np.flatnonzero(structure.access_points).tolist())
    decoded = clips.arrange(packets, structure, spans).decoded
    kept = set(np.flatnonzero(~structure.disposable[: last + 1]).tolist()) | {last}
    assert decoded == len(kept) - len(spared)
    assert spared


def test_no_number_is_left_for_a_parameter_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that uses up all numbers is decoded without stand-ins."""
    packets = index.build(clip())
    monkeypatch.setattr(h264, "_PICTURE_SETS", 0)
    assert analyse(packets).references is None


@given(st.lists(st.integers(0, 2**20), max_size=12))
def test_what_is_written_is_read(values: list[int]) -> None:
    """Fields that the writer writes, the reader reads, through escaping and back."""
    writer = BitWriter()
    for value in values:
        writer.ue(value)
        writer.u(21, value)
    escaped = escape(writer.finish())
    assert b"\0\0\0" not in escaped
    assert b"\0\0\1" not in escaped
    reader = BitReader(unescape(escaped))
    assert [(reader.ue(), reader.u(21)) for _ in values] == [(value, value) for value in values]


def test_decoders_take_the_set_for_stand_ins() -> None:
    """The configuration with one more parameter set is one that FFmpeg reads."""
    packets, structure = structure_of(clip())
    assert structure.extradata is not None
    assert len(structure.extradata) > len(packets.extradata)
    assert isinstance(packets.decoder(structure.extradata), av.VideoCodecContext)
