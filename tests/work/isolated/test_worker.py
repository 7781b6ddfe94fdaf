"""A worker, in a thread of this process: the same code, without the door."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mmmedia.errors import LimitExceededError
from mmmedia.work import watch
from mmmedia.work.isolated import wire, worker
from mmmedia.work.isolated.pool import Task, Worker
from mmmedia.work.isolated.verdicts import ending, rebuilt
from support.near import run_nearby, worker_nearby

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="decode processes need Linux")


@pytest.fixture
def near() -> Iterator[Worker]:
    with worker_nearby() as near:
        yield near


def run(near: Worker, data: bytes, **fields: Any) -> Any:
    return run_nearby(near, Task("support.killers:decode", "", data, **{"seconds": 30.0, **fields}))


def test_it_does_one_task_after_the_other(near: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(near, b"echo a", pickled=b"p") == {"rest": b"a", "pid": os.getpid(), "pickled": b"p"}
    assert (run(near, b"array 100000") == 7).all()
    large = run(near, b"array 3000000")
    assert (large == 7).all()
    again = run(near, b"array 3000000")
    again[:] = 1
    assert (large == 7).all()
    assert run(near, b"ask 4", answers={"double": lambda n: 2 * n}) == 8
    monkeypatch.setenv("MMMEDIA_MAX_IMAGE_PIXELS", "9")
    assert run(near, b"setting", settings=("VLLM_MAX_IMAGE_PIXELS",)) == 9
    monkeypatch.delenv("MMMEDIA_MAX_IMAGE_PIXELS")
    assert run(near, b"setting", settings=("VLLM_MAX_IMAGE_PIXELS",)) > 9


def test_it_tells_errors_and_goes_on(near: Worker) -> None:
    with pytest.raises(LimitExceededError, match="too large"):
        run(near, b"limit", errors={"LimitExceededError": LimitExceededError})

    def fail(number: int) -> None:
        raise KeyError(number)

    with pytest.raises(KeyError):
        run(near, b"ask 4", answers={"double": fail})
    with pytest.raises(KeyError):
        run(near, b"no_such_thing")
    assert run(near, b"echo b")["rest"] == b"b"


def test_segments_that_are_gone_are_forgotten(near: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmmedia.work.isolated.memory._LENT", 2)
    arrays = [run(near, b"leak %d" % number) for number in range(6)]
    assert [int(array.min()) for array in arrays] == [0, 1, 2, 3, 4, 5]


def test_a_decoder_that_stalled_is_known_to_the_parent(
    near: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "_stalled", {"before"})
    run(near, b"log hello")
    assert "hello" in caplog.text
    assert near.decodes == 1
    run(near, b"stall hevc")
    assert watch.stalled() == ["before", "hevc"]
    assert near.decodes > 1 << 60  # it is not used again


class TestWords:
    def test_memory_that_can_not_be_had_is_told_whatever_was_made_of_it(self) -> None:
        def decode() -> None:
            try:
                raise MemoryError
            except MemoryError:
                raise ValueError("no picture") from None

        with pytest.raises(ValueError, match="no picture") as raised:
            decode()
        assert worker.told(raised.value)["kinds"] == ["MemoryError"]
        assert worker.told(ValueError("no picture"))["kinds"][0] == "ValueError"

    def test_errors_are_made_again(self) -> None:
        known = {"LimitExceededError": LimitExceededError}
        error = rebuilt(worker.told(LimitExceededError("x" * 9000)), known)
        assert type(error) is LimitExceededError
        assert 1000 < len(str(error)) < 9000
        assert type(rebuilt(worker.told(UnicodeDecodeError("utf-8", b"", 0, 1, "bad")), known)) is ValueError

    @pytest.mark.parametrize(
        "said",
        [None, "x", {}, {"kinds": "ValueError", "words": "", "attributes": {}},
         {"kinds": [], "words": 5, "attributes": {}}, {"kinds": [], "words": ""}],
        ids=str,
    )  # fmt: skip
    def test_no_report_but_such_as_are_made_is_read(self, said: Any) -> None:
        with pytest.raises(wire.BrokenWireError):
            rebuilt(said, {})

    def test_kinds_that_are_no_names_are_passed_over(self) -> None:
        said = {"kinds": [7, [], "SystemExit", "os.system", "TypeError"], "words": "w", "attributes": {}}
        assert type(rebuilt(said, {})) is TypeError

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (-11, "SIGSEGV"),
            (-9, "killed"),
            (-24, "CPU"),
            (-63, "signal 63"),
            (5, "status 5"),
            (None, "was ended"),
        ],
    )
    def test_ends_are_told_in_words(self, status: int | None, words: str) -> None:
        assert words in ending("died", status=status).words

    def test_numbers_of_numpy_are_numbers(self) -> None:
        assert wire.pack(np.float32(0.5), []) == 0.5
