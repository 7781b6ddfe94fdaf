"""Sources: things of known size that are read in pieces, and nothing else of them."""

import asyncio
import io
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from mmmedia.errors import (
    InvalidArgumentError,
    LocalFileError,
    LocalFileNotFoundError,
    RemoteFileError,
    RemoteFileNotFoundError,
    SourceChangedError,
)
from mmmedia.sources import (
    BytesSource,
    FileSource,
    FsspecSource,
    Ranges,
    Source,
    SourceFile,
    Window,
    coalesced,
)

DATA = np.random.default_rng(16).bytes(100_000)


class Counting(BytesSource):
    """Counts what is read of it."""

    def __init__(self, data: bytes, *, gap: int = 0, ahead: int = 16) -> None:
        super().__init__(data)
        self.gap, self.ahead = gap, ahead
        self.asked: list[tuple[int, int]] = []

    def read(self, ranges: Ranges) -> list[bytes]:
        self.asked += ranges
        return super().read(ranges)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a clip.mp4"
    file.write_bytes(DATA)
    return file


def in_memory() -> FsspecSource:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/clips/a.mp4", DATA)
    return FsspecSource(filesystem, "/clips/a.mp4")


@pytest.mark.parametrize("kind", ["bytes", "file", "descriptor", "fsspec"])
def test_every_source_gives_the_stretches_that_are_asked_for(kind: str, path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    make: dict[str, Any] = {
        "bytes": lambda: BytesSource(memoryview(DATA)),
        "file": lambda: FileSource(path),
        "descriptor": lambda: FileSource(descriptor, name="a clip"),
        "fsspec": in_memory,
    }
    with make[kind]() as source:
        assert source.size == len(DATA)
        ranges = [(99_990, 100_000), (0, 3), (500, 500), (7, 90_000)]
        assert source.read(ranges) == [DATA[start:stop] for start, stop in ranges]
        assert asyncio.run(source.aread(ranges)) == source.read(ranges)
        assert source.read([]) == []
        for bad in ((-1, 3), (5, 4), (0, 100_001)):
            with pytest.raises(InvalidArgumentError, match=r"not within a source of 100000"):
                source.read([bad])
        assert source.read_all() == DATA == source.whole
    os.close(descriptor)


def test_a_file_that_changes_is_an_error(path: Path) -> None:
    """It has the same size and another time, is longer, or shorter."""
    with FileSource(path) as source:
        assert source.validator
        os.utime(path, ns=(1, 1))
        with pytest.raises(LocalFileError, match="was changed while it was read"):
            source.read([(0, 10)])
    with FileSource(path) as source:
        os.truncate(path, 50)
        with pytest.raises(LocalFileError, match="was changed while it was read"):
            source.read([(0, 100)])


def test_a_file_is_read_as_it_was_opened_though_another_takes_its_name(path: Path, tmp_path: Path) -> None:
    with FileSource(path) as source:
        other = tmp_path / "other"
        other.write_bytes(bytes(len(DATA)))
        other.rename(path)
        assert source.read([(10, 20)]) == [DATA[10:20]]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, Path("/dev/null")):
        with pytest.raises(LocalFileError, match="not a regular file"):
            FileSource(path)
    with pytest.raises(LocalFileNotFoundError, match="No such file"):
        FileSource(tmp_path / "missing")
    closed = FileSource(Path(__file__))
    closed.close()
    closed.close()
    with pytest.raises(LocalFileError, match="was closed"):
        closed.read([(0, 1)])


def test_a_file_that_may_not_be_read_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    with FileSource(path) as source:
        monkeypatch.setattr(os, "pread", refuse)
        with pytest.raises(LocalFileError, match=r"Cannot read .*Permission denied"):
            source.read([(0, 1)])
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LocalFileError, match=r"Cannot open .*Permission denied"):
        FileSource(path)


def test_an_object_that_changes_is_an_error() -> None:
    source = in_memory()
    assert source.validator
    source.read([(0, 4)])
    fsspec.filesystem("memory").pipe_file("/clips/a.mp4", DATA[::-1])
    with pytest.raises(SourceChangedError, match="was changed"):
        source.read([(0, 4)])
    with pytest.raises(RemoteFileNotFoundError, match="no object"):
        FsspecSource(fsspec.filesystem("memory"), "/clips")


def test_an_object_that_comes_short_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    source = in_memory()
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_ranges", lambda *_, **__: [b"abc"])
    with pytest.raises(RemoteFileError, match="3 bytes of 4"):
        source.read([(0, 4)])


def test_a_source_is_read_as_a_file() -> None:
    """As any file of the standard library is, seeking included, and a little ahead."""
    source = Counting(DATA, ahead=1000)
    file, real = io.BufferedReader(SourceFile(source), 64), io.BytesIO(DATA)
    rng = np.random.default_rng(1)
    for _ in range(200):
        offset, length = int(rng.integers(0, len(DATA) + 50)), int(rng.integers(0, 300))
        assert file.seek(offset) == real.seek(offset)
        assert file.read(length) == real.read(length)
        assert file.tell() == real.tell()
    assert file.seek(-5, io.SEEK_END) == len(DATA) - 5
    assert file.read() == DATA[-5:]
    raw = SourceFile(source)
    assert raw.readable()
    assert raw.seekable()
    assert raw.seek(4) == 4
    assert raw.seek(-2, io.SEEK_CUR) == 2 == raw.tell()
    with pytest.raises(ValueError, match="negative"):
        raw.seek(-1)
    before = len(source.asked)
    raw.seek(0)
    assert b"".join(raw.read(10) for _ in range(50)) == DATA[:500]
    assert len(source.asked) - before == 1


def test_stretches_near_to_each_other_are_one() -> None:
    assert coalesced([(5, 9), (0, 5), (20, 30), (25, 26), (40, 40)]) == [(0, 9), (20, 30)]
    assert coalesced([(0, 9), (20, 30)], gap=11) == [(0, 30)]
    assert coalesced([(0, 9), (20, 30)], gap=10) == [(0, 9), (20, 30)]


def test_nothing_is_read_twice_through_a_window() -> None:
    """Whatever is asked for, in whatever order: it comes right, and no byte is read again."""
    for seed, gap in enumerate((0, 0, 100, 3000)):
        rng = np.random.default_rng(seed)
        source = Counting(DATA, gap=gap)
        window = Window(source)
        for _ in range(150):
            starts = rng.integers(0, len(DATA), int(rng.integers(1, 5)))
            ranges = [(int(start), int(start + rng.integers(0, 900))) for start in starts]
            if rng.random() < 0.3:
                window.need(ranges)
            else:
                assert window.piece(*ranges[0]) == DATA[slice(*ranges[0])]
                assert window.head(ranges[-1][0], 4) == DATA[ranges[-1][0] : ranges[-1][0] + 4]
        assert window.fetched == sum(stop - start for start, stop in source.asked)
        if not gap:
            read = np.zeros(len(DATA), np.int64)
            for start, stop in source.asked:
                read[start:stop] += 1
            assert read.max() == 1
        assert window.all() == DATA == source.whole
        assert window.missing([(0, len(DATA))]) == []


def test_a_window_begins_with_what_a_source_knows() -> None:
    source = Counting(DATA)
    source.head = DATA[:50]
    window = Window(source)
    assert window.piece(10, 50) == DATA[10:50]
    assert (window.fetched, source.asked) == (50, [])
    source.whole = DATA
    assert Window(source).all() == DATA
    assert source.asked == []


def test_identity_tells_sources_apart_and_is_no_file(path: Path) -> None:
    class Named(Source):
        def __init__(self, name: str, validator: str) -> None:
            self.size, self.name, self.validator = 5, name, validator

        def read(self, ranges: Ranges) -> list[bytes]:
            raise NotImplementedError

    named = Named
    assert named("a", "").identity != named("a", "").identity
    assert BytesSource(b"abc", name="a").identity == BytesSource(b"abc", name="b").identity
    assert BytesSource(b"abc").identity != BytesSource(b"abd").identity

    assert named("a", "1").identity == named("a", "1").identity
    assert len({named("a", "1").identity, named("b", "1").identity, named("a", "2").identity}) == 3
    assert FileSource(path).identity.startswith(b"mmmedia-source:")
    assert "a clip.mp4" in repr(FileSource(path))
