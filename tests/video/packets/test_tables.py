"""The tables of MP4 files against demuxing: the same samples, or no answer."""

import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mmmedia import containers
from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders.packets import index, tables
from support import corpus
from support.clips import clip

CLIP: dict[str, Any] = {"frames": 40, "width": 64, "height": 48}
TABLES = [b"ctts", b"stts", b"stsz", b"stco", b"stsc", b"stss", b"elst", b"stsd", b"tkhd", b"mdhd", b"trak"]


def compare(data: bytes) -> str:
    """Say which way gives the samples of a file, and see that both give the same where both do."""
    try:
        with containers.open_av(data, options=index._options(containers.admit(data))) as container:
            stream = containers.video_stream(container)
            found = tables.samples(data, container, stream)
            if found is None:
                return "demuxed"
            demuxed = index._by_demuxing(data, container, stream)
    except InvalidMediaError:
        return "refused"
    for name, column in found._asdict().items():
        assert np.array_equal(column, demuxed[name]), name
    assert not demuxed["corrupt"].any()
    assert not demuxed["side_data"]
    return "read"


def _too_long(data: bytes) -> bytes:
    """Say of the last sample of the last track that it goes on beyond the file."""
    start = data.rindex(b"stsz") + 4
    last = start + 8 + 4 * int.from_bytes(data[start + 8 : start + 12], "big")
    return data[:last] + len(data).to_bytes(4, "big") + data[last + 4 :]


@pytest.mark.parametrize("container", ["mp4", "mov"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bframes": 0},
        {"audio": True},
        {"audio": True, "extra_video": (32, 32)},
        {"codec": "libx265"},
        {"codec": "mpeg4"},
        {"container_options": {"movflags": "negative_cts_offsets"}, "bframes": 0},
    ],
    ids=str,
)
def test_common_files_are_read_by_their_tables(container: str, fields: dict[str, Any]) -> None:
    assert compare(clip(**{**CLIP, **fields}, container=container)) == "read"


@pytest.mark.parametrize(
    "data",
    [
        lambda: clip(**CLIP, container="matroska"),
        lambda: clip(**CLIP, container_options={"movflags": "frag_keyframe+empty_moov"}),
        lambda: clip(**CLIP, container_options={"movflags": "negative_cts_offsets"}),
        lambda: _too_long(clip(**CLIP)),
        lambda: _too_long(clip(**CLIP, audio=True)),
        lambda: clip(**CLIP, bframes=0).replace(b"stsz", b"none", 1),
    ],
    ids=["no MP4", "fragments", "times go back", "too long", "sound too long", "no sizes"],
)
def test_where_there_may_be_more_to_it_it_is_demuxed(data: Any) -> None:
    assert compare(data()) in ("demuxed", "refused")


def test_hidden_frames() -> None:
    """An edit list that begins later hides the first samples, which stay in the file."""
    data = corpus.hide_lead_in(clip(**CLIP, bframes=0), 5 * 512)
    assert compare(data) == "read"
    assert index.build(data).discard.sum() == 5


def test_without_index_entries_it_is_demuxed() -> None:
    """PyAV 16 has none."""
    data = clip(**CLIP)
    with containers.open_av(data) as container:
        number = containers.video_stream(container).id
    assert tables.samples(data, SimpleNamespace(streams=[]), SimpleNamespace(id=number)) is None


def test_damaged_tables_never_give_other_samples() -> None:
    chance, outcomes = random.Random(0), Counter[str]()
    files = [
        clip(**CLIP, audio=audio, container=container, codec=codec)
        for audio in (False, True)
        for container in ("mp4", "mov")
        for codec in ("libx264", "mpeg4")
    ]
    for data in files:
        places = [at for name in TABLES if (at := data.find(name)) > 0]
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(chance.choice([1, 1, 2, 5])):
                at = min(chance.choice(places) + chance.randrange(60), len(damaged) - 1)
                damaged[at] = chance.choice([0, 1, 255, 7])
            outcomes[compare(bytes(damaged))] += 1
    assert min(outcomes["read"], outcomes["demuxed"]) > 30


@pytest.mark.parametrize(
    "damage",
    [
        *(
            lambda data, name=name: data.replace(name, b"free")
            for name in (b"stsz", b"stco", b"stts", b"minf")
        ),
        lambda data: _put(data, b"stsz", 12, b"\xff\xff\xff\xff"),
        lambda data: _put(data, b"stss", 8, b"\0\xff\xff\xff"),
        lambda data: _put(data, b"stts", 8, b"\0\xff\xff\xff"),
    ],
)
def test_a_table_that_is_not_there_or_can_not_be(damage: Callable[[bytes], bytes]) -> None:
    assert compare(damage(clip(**CLIP))) in {"demuxed", "refused"}


def _put(data: bytes, name: bytes, behind: int, value: bytes) -> bytes:
    at = data.index(name) + behind
    return data[:at] + value + data[at + len(value) :]
