"""What is said between parent and worker, and what is not believed of it."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mmmedia.work.isolated import wire
from mmmedia.work.isolated.wire import BrokenWireError, Described, Later, Wire

Ends = tuple[Wire, Wire]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The parent's, which does not trust, and the worker's."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        yield Wire(mine, trusts=False), Wire(theirs, trusts=True)


class TestTrees:
    def test_values_survive(self) -> None:
        value = [None, True, 3, 1.5, "x", (1, (2,)), {"a": [b"b"], 5: np.eye(2)}, float("-inf"), np.int64(4)]
        arrays: list[Any] = []
        tree = json.loads(json.dumps(wire.pack(value, arrays)))
        found = wire.unpack(tree, arrays)
        assert found[:6] == value[:6]
        assert found[6]["a"] == [b"b"]
        assert found[6][5] is arrays[1]
        assert found[7:] == [float("-inf"), 4]
        assert type(found[8]) is int

    @pytest.mark.parametrize("value", [object(), {1.5: 2}, {1, 2}, np.array([object()]), 1j])
    def test_other_things_are_not_sent(self, value: Any) -> None:
        with pytest.raises(TypeError):
            wire.pack([value], [])

    @pytest.mark.parametrize(
        "tree",
        [{}, {"a": 0, "b": 1}, {"a": 7}, {"a": -1}, {"a": "0"}, {"a": None}, {"t": 3}, {"d": [[1]]},
         {"d": {"x": 1}}, {"d": [[[], 1]]}, {"d": [[1.5, 1]]}, [{"a": 0}, {"b": 0}]],
        ids=str,
    )  # fmt: skip
    def test_no_tree_but_such_as_are_made_is_read(self, tree: Any) -> None:
        with pytest.raises(BrokenWireError):
            wire.unpack(tree, [b"x"])

    def test_a_tree_of_too_many_levels_is_no_tree(self) -> None:
        tree: Any = []
        for _ in range(100_000):
            tree = [tree]
        with pytest.raises(BrokenWireError, match="levels"):
            wire.unpack(tree, [])
        while tree:  # or taking it apart would overflow the stack
            tree = tree[0]

    def test_arrays_are_described_and_placed(self) -> None:
        later = Later(5, lambda memory: None)
        said = wire.describe([np.zeros((2, 3), np.float32), b"abc", later])
        found = wire.described(json.loads(json.dumps(said)))
        assert found == [Described("float32", (2, 3)), Described("bytes", (3,)), Described("uint8", (5,))]
        assert [each.nbytes for each in found] == [24, 3, 5]
        assert wire.places(found) == ([0, 64, 128], 192)

    @pytest.mark.parametrize(
        "said",
        [None, [1], [["uint8"]], [["uint8", 4]], [["object", [1]]], [["bytes", [1, 1]]], [["uint8", [-1]]],
         [["uint8", [1.0]]], [["uint8", [True]]], [["uint8", [1] * 33]], [[["uint8"], [1]]]],
        ids=str,
    )  # fmt: skip
    def test_no_array_but_such_as_there_are_is_believed(self, said: Any) -> None:
        with pytest.raises((BrokenWireError, TypeError)):
            wire.described(said)


class TestFrames:
    def test_messages_pickles_and_descriptors_arrive(self, ends: Ends) -> None:
        mine, theirs = ends
        reads, writes = os.pipe()
        big = {"text": "ä" * 300_000}
        thread = threading.Thread(target=mine.send, args=(big, b"p" * 500_000, (writes,)))
        thread.start()
        message, pickled, descriptors = theirs.receive()
        thread.join()
        os.close(writes)
        assert (message, pickled) == (big, b"p" * 500_000)
        os.write(descriptors[0], b"x")
        os.close(descriptors[0])
        assert os.read(reads, 9) == b"x"
        os.close(reads)

    def test_several_come_in_their_order(self, ends: Ends) -> None:
        mine, theirs = ends
        for number in range(5):
            theirs.send({"number": number})
        assert [mine.receive(1.0)[0]["number"] for _ in range(5)] == [0, 1, 2, 3, 4]

    def test_no_descriptor_is_taken_from_a_worker(self, ends: Ends) -> None:
        mine, theirs = ends
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        socket.send_fds(theirs.socket, [b"\x02\0\0\0\0\0\0\0{}"], [0, 1, 2])
        assert mine.receive(1.0) == ({}, b"", [])
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    @pytest.mark.parametrize(
        "said",
        [b"\xff\xff\xff\x7f\0\0\0\0", b"\x02\0\0\0\x01\0\0\0{}x", b"\x02\0\0\0\0\0\0\0[]",
         b"\x02\0\0\0\0\0\0\0\xff\xff"],
    )  # fmt: skip
    def test_no_frame_but_such_as_are_sent_is_read(self, ends: Ends, said: bytes) -> None:
        ends[1].socket.sendall(said)
        with pytest.raises(BrokenWireError):
            ends[0].receive(1.0)

    def test_the_end_is_told_and_waiting_is_not_for_ever(self, ends: Ends) -> None:
        mine, theirs = ends
        with pytest.raises(TimeoutError):
            mine.receive(0.01)
        with pytest.raises(TimeoutError):
            mine.receive(0.0)
        theirs.close()
        with pytest.raises(BrokenWireError, match="the end"):
            mine.receive(1.0)
        with pytest.raises(BrokenWireError, match="BrokenPipeError"):
            mine.send({"text": "x"})
