"""Encoded files in memory that both sides see: whole, sealed, copied once, gone when nobody reads them."""

import fcntl
import io
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmmedia.work.isolated import files
from mmmedia.work.isolated.files import Files, heads_are_known, sealed

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="decode processes need Linux")

LENGTHS = [0, 1, 2, 4063, 4064, 4095, 4096, 4097, 70_000, 1 << 20]


@pytest.fixture(params=["in place", "copied"])
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    if request.param == "copied":  # as where bytes have another head
        monkeypatch.setattr(files, "heads_are_known", lambda: False)
    made = Files()
    yield made
    made.let_go()


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("mmmedia-in")


@pytest.mark.parametrize("length", LENGTHS)
def test_bytes_come_as_they_are(opener: Files, length: int) -> None:
    data = os.urandom(length)
    (found,) = opener.opened(sealed([data]), [length])
    assert type(found) is bytes
    assert found == data
    assert hash(found) == hash(data)
    assert found[1:].find(data[-3:]) == data[1:].find(data[-3:])
    assert re.escape(found) == re.escape(data)
    file = io.BytesIO(found)
    assert file.read() == data
    file.write(b"more")
    assert found == data
    assert found + b"x" == data + b"x"


def test_several_come_each_as_it_is(opener: Files) -> None:
    parts = [os.urandom(length) for length in LENGTHS]
    assert opener.opened(sealed(parts), LENGTHS) == parts
    assert opener.opened(sealed([]), []) == []


def test_nobody_can_change_them() -> None:
    descriptor = sealed([b"x" * 5000])
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"y", mmap.PAGESIZE)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    with pytest.raises(PermissionError):
        mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE)
    assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
    os.close(descriptor)


def test_what_has_a_head_here_is_not_seen_by_the_other_side() -> None:
    descriptor = sealed([b"x" * 5000])
    opener = Files()
    (found,) = opener.opened(os.dup(descriptor), [5000])
    assert hash(found)
    assert os.pread(descriptor, mmap.PAGESIZE, 0) == bytes(mmap.PAGESIZE)
    os.close(descriptor)
    del found
    opener.let_go()


@pytest.mark.skipif(not heads_are_known(), reason="bytes have another head here")
def test_memory_goes_once_nobody_reads_it_any_more() -> None:
    opener, before = Files(), mappings()
    (found,) = opener.opened(sealed([b"x" * 70_000]), [70_000])
    (other,) = opener.opened(sealed([b"y" * 70_000]), [70_000])
    both = mappings() - before
    assert both >= 2
    view = memoryview(found)[100:200]
    del found, other
    opener.let_go()
    assert mappings() - before == both // 2
    assert bytes(view) == b"x" * 100
    del view
    opener.let_go()
    assert mappings() == before


def test_no_descriptor_is_left(opener: Files) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    found = opener.opened(sealed([b"x" * 70_000, b"y"]), [70_000, 1])
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert len(found) == 2
