"""Workers that die, hang, lie and grow: what becomes of the request, of the others, and of what is left."""

import asyncio
import gc
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmmedia import envs
from mmmedia.errors import DecoderDiedError, DecoderUnavailableError, InvalidMediaError, LimitExceededError
from mmmedia.work import calls
from mmmedia.work.isolated import door, wire
from mmmedia.work.isolated.pool import Pool, Task
from support.forking import holds_in_child
from support.waiting import wait_until as until

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="decode processes need Linux")


@pytest.fixture(autouse=True)
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "2")


@pytest.fixture(scope="module")
def shared() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


def task(data: bytes, **fields: Any) -> Task:
    return Task("support.killers:decode", "support.killers:prepare", data, **{"seconds": 60.0, **fields})


def worker_pids(pool: Pool) -> list[int]:
    return sorted(pool.pids)


def descriptors() -> set[str]:
    """Those that are open."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def resident(pid: str) -> dict[str, int]:
    """KiB of a process's memory, by kind."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {name: int(kib) for name, kib in re.findall(r"^(Rss\w+):\s+(\d+) kB$", status, re.MULTILINE)}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class TestAnswers:
    def test_values_come_as_they_were(self, shared: Pool) -> None:
        found = shared.run(task(b"values"))
        assert found[:6] == [None, True, 1, -0.5, "x", b"y"]
        assert found[7] == float("inf")
        one, (two, inner) = found[6]
        assert (one, two, inner["a"]) == (1, 2, (3,))
        assert np.array_equal(inner[4], np.arange(6).reshape(2, 3))

    def test_the_file_and_what_is_pickled_arrive_whole(self, shared: Pool) -> None:
        rest = os.urandom(3 << 20)
        answer = shared.run(task(b"echo " + rest, pickled=b"p" * 200_000))
        assert answer["rest"] == rest
        assert answer["pickled"] == b"p" * 200_000

    def test_errors_keep_their_class_and_words(self, shared: Pool) -> None:
        with pytest.raises(LimitExceededError, match="too large"):
            shared.run(task(b"limit", errors={"LimitExceededError": LimitExceededError}))
        with pytest.raises(InvalidMediaError, match="nobody knows this"):
            shared.run(task(b"odd"))

    def test_a_worker_goes_by_the_settings_of_the_request(
        self, shared: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = task(b"setting", settings=("VLLM_MAX_IMAGE_PIXELS",))
        default = shared.run(asked)
        monkeypatch.setenv("MMMEDIA_MAX_IMAGE_PIXELS", "77")
        assert shared.run(asked) == 77
        with envs.at_most({"VLLM_MAX_IMAGE_PIXELS": 5}):
            assert shared.run(asked) == 5
        monkeypatch.delenv("MMMEDIA_MAX_IMAGE_PIXELS")
        assert {shared.run(asked) for _ in range(4)} == {default}
        with envs.unless_set({"VLLM_MAX_IMAGE_PIXELS": 6}):
            assert shared.run(asked) == 6
            monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "7")
            assert shared.run(asked) == 7
        monkeypatch.setitem(vars(envs), "VLLM_MAX_IMAGE_PIXELS", 8)
        assert shared.run(asked) == 8

    def test_what_a_worker_logs_is_logged_here_in_one_line(
        self, shared: Pool, caplog: pytest.LogCaptureFixture
    ) -> None:
        shared.run(task(b"log \x1b[31mred"))
        assert caplog.record_tuples == [("mmmedia.killers", 30, "careful:  [31mred")]

    def test_questions_are_answered_and_their_errors_raised_here(self, shared: Pool) -> None:
        assert shared.run(task(b"ask 21", answers={"double": lambda n: 2 * n})) == 42
        mine = KeyError("mine")

        def fail(_: int) -> None:
            raise mine

        with pytest.raises(KeyError) as raised:
            shared.run(task(b"ask 21", answers={"double": fail}))
        assert raised.value is mine
        assert shared.run(task(b"ask 4", answers={"double": lambda n: 2 * n})) == 8

    def test_answers_may_hold_bytes(self, shared: Pool) -> None:
        large = os.urandom(3 << 20)
        found = shared.run(task(b"ask 3", answers={"double": lambda n: [large[:n], (b"", {"x": large})]}))
        assert found == [large[:3], (b"", {"x": large})]


class TestMemory:
    def test_an_encoded_file_is_copied_once(self, pool: Pool) -> None:
        """Into memory that both have: neither has a copy of its own while the worker reads it."""
        data = b"\1" * (200 << 20)
        before = resident("self")
        answers = {"weigh": lambda pid: [resident(str(pid)), resident("self")]}
        total, is_hashed, end, (worker, parent) = pool.run(
            Task("support.killers:weigh", "support.killers:prepare", data, answers=answers)
        )
        assert (total, is_hashed, end) == (200 << 8, True, b"\1" * 5)
        assert worker["RssShmem"] >> 10 >= 200
        assert worker["RssAnon"] >> 10 < 100
        assert parent["RssAnon"] - before["RssAnon"] < 20 << 10

    def test_what_a_worker_keeps_of_files_stays_as_it_was(
        self, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
        found = [pool.run(task(b"keep" + b" %d" % number * 70_000)) for number in range(10, 14)]
        assert found[-1] == [b"10 10", b"11 11", b"12 12", b"13 13"]

    def test_a_worker_lets_go_of_files(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
        for _ in range(5):
            pool.run(task(b"echo " + bytes(1 << 20)))
        pool.run(task(b"echo"))
        assert Path(f"/proc/{pool.pids[0]}/maps").read_text().count("mmmedia-in") <= 2  # those of the last

    @pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 5 << 20])
    def test_arrays_of_any_size_come_whole_and_may_be_written(self, shared: Pool, size: int) -> None:
        array = shared.run(task(b"array %d" % size))
        assert array.shape == (size,)
        assert (array == 7).all()
        if size:
            array[-1] = 1
            assert array[-1] == 1

    def test_an_array_is_its_owners_whatever_comes_after_it(self, shared: Pool) -> None:
        kept = [shared.run(task(b"leak %d" % number)) for number in range(20)]
        for number, array in enumerate(kept):
            assert (array == number).all()
            array += 100
        assert [int(array.max()) for array in kept] == [number + 100 for number in range(20)]

    def test_memory_is_used_again_once_its_arrays_have_died(self, pool: Pool) -> None:
        for _ in range(30):
            pool.run(task(b"array %d" % (4 << 20)))
        segments = [worker.segments for worker in pool._workers.values()]
        assert all(next(each._numbers) <= 3 for each in segments)

    def test_a_view_keeps_the_memory_from_being_used_again(self, pool: Pool) -> None:
        view = pool.run(task(b"leak 5"))[100:200]
        gc.collect()
        for number in range(6, 12):
            pool.run(task(b"leak %d" % number))
        assert (view == 5).all()

    def test_a_forked_child_keeps_its_arrays(self, pool: Pool) -> None:
        array = pool.run(task(b"leak 5"))
        ready, go = os.pipe(), os.pipe()

        def holds() -> bool:
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            return bool((array == 5).all())

        def later() -> None:
            nonlocal array
            os.read(ready[0], 1)
            del array
            for number in range(6, 12):
                pool.run(task(b"leak %d" % number))
            os.write(go[1], b"x")

        thread = threading.Thread(target=later)
        thread.start()
        assert holds_in_child(holds)
        thread.join()

    def test_what_is_kept_without_use_has_a_limit(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mmmedia.work.isolated.memory._KEPT_BYTES", 1 << 20)
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
        arrays = [pool.run(task(b"array %d" % (4 << 20))) for _ in range(5)]
        del arrays
        (worker,) = pool._workers.values()
        assert sum(each.used for each in (*worker.segments._free, *worker.segments._back)) <= 1 << 20

    def test_thousands_of_arrays_take_no_thousands_of_descriptors(self, pool: Pool) -> None:
        pool.run(task(b"echo"))
        before = len(descriptors())
        arrays = [pool.run(task(b"array 100000")) for _ in range(300)]
        assert len(descriptors()) - before < 150
        assert all((array == 7).all() for array in arrays)


DEATHS: dict[bytes, tuple[str, str]] = {
    b"segv": ("crash", "SIGSEGV"),
    b"abort": ("crash", "SIGABRT"),
    b"exit": ("crash", "status 3"),
    b"spin": ("hang", r"longer than 1\.5 s .*MMMEDIA_DECODE_PROCESS_TIMEOUT_S"),
    b"allocate": ("memory", "more than the 256 MiB .*MMMEDIA_DECODE_PROCESS_MEMORY_MB"),
    b"malloc": ("crash", "SIGSEGV"),
    b"write": ("lie", "answered what can't be"),
}


class TestDeaths:
    @pytest.mark.parametrize("killer", DEATHS)
    def test_the_request_is_told_what_happened_and_the_next_is_decoded(
        self, killer: bytes, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESS_MEMORY_MB", "256")
        reason, words = DEATHS[killer]
        seconds = 1.5 if reason == "hang" else 60.0
        with pytest.raises(DecoderDiedError, match=words) as raised:
            pool.run(task(killer, seconds=seconds))
        assert raised.value.reason == reason
        assert raised.value.http_status == 422
        assert pool.ends[reason] == 1
        assert pool.run(task(b"echo fine"))["rest"] == b"fine"
        assert pool.alive == 2

    def test_address_space_has_a_limit_too(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESS_MEMORY_MB", "256")
        with pytest.raises(OSError, match="memory"):
            pool.run(task(b"allocate_shared"))

    @pytest.mark.parametrize(
        "lie",
        ["nothing", "kinds", "number", "twice", "dtype", "negative", "boolean", "error", "refused",
         "question", "records", "junk", "huge", "pickle", "deep"],
    )  # fmt: skip
    def test_a_worker_that_says_what_can_not_be_is_ended(self, lie: str, shared: Pool) -> None:
        before = worker_pids(shared)
        with pytest.raises(DecoderDiedError, match="answered what can't be") as raised:
            shared.run(task(b"lie " + lie.encode()))
        assert raised.value.reason == "lie"
        until(lambda: len(worker_pids(shared)) == 2 and worker_pids(shared) != before)

    def test_what_is_announced_is_checked_before_there_is_memory_for_it(self, shared: Pool) -> None:
        def check(value: wire.Described) -> None:
            if value.nbytes > 1000:
                raise wire.BrokenWireError("too many")

        with pytest.raises(DecoderDiedError, match="too many"):
            shared.run(task(b"claim %d" % (1 << 50), check=check))
        with pytest.raises(DecoderDiedError, match="status 7"):  # it was granted, and did not fill it
            shared.run(task(b"claim 900", check=check))

    def test_the_others_notice_nothing(self, pool: Pool) -> None:
        with ThreadPoolExecutor(8) as threads:
            works = [b"segv %d" % n if n % 5 == 0 else b"echo %d" % n for n in range(60)]
            futures = [threads.submit(pool.run, task(work)) for work in works]
        for number, future in enumerate(futures):
            if number % 5 == 0:
                assert isinstance(future.exception(), DecoderDiedError)
            else:
                assert future.result()["rest"] == b"%d" % number

    def test_an_idle_worker_that_is_killed_is_replaced_unasked(self, pool: Pool) -> None:
        pool.run(task(b"echo"))
        # One that dies before it is up is not replaced unasked: the next would as well.
        until(lambda: len(worker_pids(pool)) == 2 and all(each.was_born() for each in pool._workers.values()))
        before = worker_pids(pool)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(worker_pids(pool)) == 2 and before[0] not in worker_pids(pool))
        assert [pool.run(task(b"echo %d" % n))["rest"] for n in range(4)] == [b"0", b"1", b"2", b"3"]

    def test_a_worker_killed_by_the_system_is_told_as_such(self, pool: Pool) -> None:
        pool.run(task(b"echo"))
        until(lambda: len(worker_pids(pool)) == 2)
        before = {worker.number: worker.decodes for worker in pool._workers.values()}

        def busy() -> list[int]:
            workers = tuple(pool._workers.values())
            return [worker.pid for worker in workers if worker.decodes > before[worker.number]]

        with ThreadPoolExecutor(1) as threads:
            future = threads.submit(pool.run, task(b"sleep 50"))
            until(busy)
            os.kill(busy()[0], signal.SIGKILL)
            with pytest.raises(DecoderDiedError, match=r"killed \(SIGKILL\), as the system does when memory"):
                future.result()

    def test_a_file_that_ended_two_workers_is_not_tried_a_third_time(self, pool: Pool) -> None:
        for _ in range(2):
            with pytest.raises(DecoderDiedError, match="SIGSEGV"):
                pool.run(task(b"segv again"))
        ends = sum(pool.ends.values())
        with pytest.raises(DecoderDiedError, match="ended two decode processes") as raised:
            pool.run(task(b"segv again"))
        assert raised.value.reason == "known"
        assert sum(pool.ends.values()) == ends
        assert pool.run(task(b"echo other"))["rest"] == b"other"

    def test_that_is_forgotten_after_an_hour(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        for _ in range(2):
            with pytest.raises(DecoderDiedError):
                pool.run(task(b"exit again"))
        now = time.monotonic()
        monkeypatch.setattr("mmmedia.work.isolated.offenders.time.monotonic", lambda: now + 3601)
        with pytest.raises(DecoderDiedError, match="status 3"):
            pool.run(task(b"exit again"))

    def test_a_server_that_is_killed_is_started_again(self, pool: Pool) -> None:
        pool.run(task(b"echo"))
        until(lambda: len(worker_pids(pool)) == 2)
        pids, server = worker_pids(pool), pool._forker
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not any(map(is_alive, pids)))
        until(lambda: not server.is_alive)
        assert pool.run(task(b"echo again"))["rest"] == b"again"

    def test_what_can_not_be_prepared_is_an_error(self, pool: Pool) -> None:
        with pytest.raises(DecoderUnavailableError, match="could be started"):
            pool.run(Task("support.killers:decode", "support.killers:fail", b"echo"))

    def test_what_fails_here_in_the_midst_costs_a_worker_and_nothing_else(
        self, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(24, "too many open files")

        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
        monkeypatch.setattr("mmmedia.work.isolated.memory.Segments.take", fail)
        with pytest.raises(OSError, match="too many open files"):
            pool.run(task(b"array 100000"))
        monkeypatch.undo()
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
        assert (pool.run(task(b"array 100000")) == 7).all()

    def test_a_worker_that_can_not_be_replaced_is_later(
        self, pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(24, "too many open files")

        assert pool.run(task(b"echo a"))["rest"] == b"a"
        monkeypatch.setattr("mmmedia.work.isolated.forker.Forker.fork", fail)
        with pytest.raises(DecoderDiedError, match="SIGSEGV"):
            pool.run(task(b"segv"))
        assert "can't be replaced for now" in caplog.text
        monkeypatch.undo()
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "2")
        assert pool.run(task(b"echo c"))["rest"] == b"c"
        assert pool.alive == 2


class TestDoor:
    def test_nothing_is_open_but_its_own_end(self, shared: Pool) -> None:
        assert len(shared.run(task(b"descriptors"))) == 4

    def test_nothing_else_is_permitted(self, shared: Pool) -> None:
        outcomes = shared.run(task(b"forbidden 80"))
        held = set(shared.held or ())
        if not {"seccomp", "landlock"} <= held:
            pytest.skip(f"this system gives no more than {held}")
        assert {what: outcome for what, outcome in outcomes.items() if outcome != "PermissionError"} == {}
        assert not Path("/tmp/mmmedia-killer").exists()

    def test_no_secret_of_the_environment_is_there(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        monkeypatch.setenv("VLLM_API_KEY", "s3cret")
        found = pool.run(task(b"environment"))
        assert "s3cret" not in found.values()
        assert set(found) >= {"PATH"}

    def test_threads_may_be_started(self, shared: Pool) -> None:
        assert shared.run(task(b"threads")) == [0, 1, 2, 3]

    def test_processes_have_names_and_sessions_of_their_own(self, shared: Pool) -> None:
        assert shared.run(task(b"name")) == (True, True)
        until(lambda: len(worker_pids(shared)) == 2)
        for pid in worker_pids(shared):
            assert Path(f"/proc/{pid}/comm").read_bytes().strip() == door.NAME
        assert shared._forker is not None
        assert Path(f"/proc/{shared._forker.pid}/comm").read_bytes().strip() == b"mmmedia-forker"

    def test_what_this_system_does_not_give_is_told_once(
        self, pool: Pool, caplog: pytest.LogCaptureFixture
    ) -> None:
        pool.run(task(b"echo"))
        worker = next(iter(pool._workers.values()))
        pool.held = None
        for _ in range(3):
            pool._note_door(worker, ["rlimits"])
        assert [record.getMessage() for record in caplog.records] == [
            "Decode processes do without capabilities, landlock, seccomp, which this system does not give."
        ]


class TestQueue:
    def test_no_more_wait_than_may(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MMMEDIA_DECODE_QUEUE", "1")
        with ThreadPoolExecutor(3) as threads:
            running = [threads.submit(pool.run, task(b"sleep 3")) for _ in range(3)]
            until(lambda: pool.queue_length == 1)
            with pytest.raises(DecoderUnavailableError, match="MMMEDIA_DECODE_QUEUE") as raised:
                pool.run(task(b"echo"))
            assert raised.value.http_status == 503
            for future in running:
                future.result()

    def test_others_decode_while_one_waits_for_what_it_asked(
        self, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
        slow, holding, is_asked = threading.Event(), threading.Event(), threading.Event()

        def double(number: int) -> int:
            is_asked.set()
            assert slow.wait(60)
            return 2 * number

        def hold(number: int) -> int:
            assert holding.wait(60)
            return number

        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(
                pool.run, task(b"ask 4", answers={"double": double}, waits=frozenset({"double"}))
            )
            assert is_asked.wait(60)
            assert pool.run(task(b"echo a"))["rest"] == b"a"
            assert pool.alive == 2
            second = threads.submit(pool.run, task(b"ask 5", answers={"double": hold}))
            until(lambda: not pool._idle)
            slow.set()
            until(lambda: pool.queue_length == 1)  # it has its answer, and no turn to go on
            assert not first.done()
            holding.set()
            assert (first.result(), second.result()) == (8, 5)
        assert pool.run(task(b"echo b"))["rest"] == b"b"
        assert (pool.alive, pool._away) == (1, 0)

    def test_no_more_are_waited_for_than_may(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
        monkeypatch.setattr("mmmedia.work.isolated.pool._MOST_AWAY", 1)
        go = threading.Event()

        def double(number: int) -> int:
            assert go.wait(60)
            return 2 * number

        asked = task(b"ask 4", answers={"double": double}, waits=frozenset({"double"}))
        with ThreadPoolExecutor(3) as threads:
            running = [threads.submit(pool.run, asked) for _ in range(3)]
            until(lambda: pool._away == 1 and pool.queue_length == 1)
            assert pool.alive == 2
            go.set()
            assert [future.result() for future in running] == [8, 8, 8]
        assert pool._away == 0

    def test_who_is_not_wanted_any_more_does_not_come_back(self, pool: Pool) -> None:
        loop = asyncio.new_event_loop()
        wanted = loop.create_future()

        def double(number: int) -> int:
            wanted.cancel()
            return 2 * number

        def occupied(number: int) -> int:
            running = [threads.submit(pool.run, task(b"sleep 50")) for _ in range(2)]
            until(lambda: pool._away == 1 and not pool._idle and pool.queue_length == 0)
            assert not any(each.done() for each in running)
            return double(number)

        asked = task(b"ask 4", answers={"double": occupied}, waits=frozenset({"double"}))
        with ThreadPoolExecutor(2) as threads:
            with calls.on_behalf_of(wanted), pytest.raises(asyncio.CancelledError):
                pool.run(asked)
            loop.close()
            assert (pool._away, pool.queue_length) == (0, 0)
            pool.close()

    def test_workers_are_renewed_after_so_many_decodes(
        self, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESS_LIFE", "3")
        pids = [pool.run(task(b"echo"))["pid"] for _ in range(9)]
        assert [len(set(pids[at : at + 3])) for at in (0, 3, 6)] == [1, 1, 1]
        assert len(set(pids)) == 3
        assert pool.ends["renewed"] == 3

    def test_workers_are_renewed_after_so_many_bytes(
        self, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
        monkeypatch.setattr("mmmedia.work.isolated.pool._LIFE_BYTES", 3 << 20)
        for _ in range(4):
            pool.run(task(b"array %d" % (2 << 20)))
        assert pool.ends["renewed"] == 2

    def test_their_number_follows_the_setting(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        pool.run(task(b"echo"))
        assert pool.alive == 2
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "3")
        pool.run(task(b"echo"))
        assert pool.alive == 3
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
        for _ in range(4):
            pool.run(task(b"echo"))
        assert pool.alive == 1

    def test_modules_are_imported_when_first_needed(self, pool: Pool) -> None:
        first = pool.run(task(b"echo"))["pid"]
        needed = frozenset({"support.scripts"})
        again = [pool.run(task(b"echo", modules=needed))["pid"] for _ in range(3)]
        assert first not in again


class TestEnds:
    def test_closing_leaves_no_process_and_no_descriptor(self) -> None:
        before = descriptors()
        pool = Pool()
        array = pool.run(task(b"leak 9"))
        until(lambda: len(worker_pids(pool)) == 2)
        pids = [*worker_pids(pool), pool._forker.pid if pool._forker else 0]
        pool.close()
        assert not any(map(is_alive, pids))
        assert (array == 9).all()
        assert descriptors() == before

    def test_closing_ends_what_is_under_way_and_what_waits(self) -> None:
        pool = Pool()
        with ThreadPoolExecutor(4) as threads:
            pool.run(task(b"echo"))
            futures = [threads.submit(pool.run, task(b"sleep 50")) for _ in range(4)]
            until(lambda: pool.queue_length == 2)
            pool.close()
            kinds = {type(future.exception()) for future in futures}
        assert kinds == {DecoderDiedError, DecoderUnavailableError}

    def test_a_forked_child_has_workers_of_its_own(self, pool: Pool) -> None:
        mine = {pool.run(task(b"echo"))["pid"] for _ in range(4)}

        def child() -> bool:
            pool.abandon()
            own = Pool()
            try:
                return own.run(task(b"echo"))["pid"] not in mine
            finally:
                own.close()

        assert holds_in_child(child)
        assert pool.run(task(b"echo"))["pid"] in mine

    def test_workers_end_when_their_parent_is_killed(self, tmp_path: Path) -> None:
        import subprocess
        import sys

        script = """
            import os, sys, threading, time
            os.environ["MMMEDIA_DECODE_PROCESSES"] = "2"
            from mmmedia.work.isolated.pool import Pool, Task
            pool = Pool()
            def run(data):
                return pool.run(Task("support.killers:decode", "support.killers:prepare", data))
            run(b"echo")
            threading.Thread(target=run, args=(b"spin",), daemon=True).start()
            while len(pool.pids) < 2 or len(pool._idle) > 1:
                time.sleep(0.01)
            print(*pool.pids, pool._forker.pid, flush=True)
            time.sleep(60)
        """
        import textwrap

        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            assert process.stdout is not None
            pids = [int(pid) for pid in process.stdout.readline().split()]
            assert len(pids) == 3
            process.kill()
        until(lambda: not any(map(is_alive, pids)))


def run_each(pool: Pool, works: list[bytes], width: int) -> list[Any]:
    """What each comes to, so many at a time."""

    def one(work: bytes) -> Any:
        try:
            return pool.run(task(work, seconds=1.0 if work.startswith(b"spin") else 60.0))
        except Exception as error:
            return error

    with ThreadPoolExecutor(width) as threads:
        return list(threads.map(one, works))


def besieged(pool: Pool, count: int) -> None:
    """A tenth are killers: every good one is right, every bad one its one error."""
    killers = [b"segv %d", b"abort %d", b"exit %d", b"spin %d", b"lie nothing", b"write %d", b"lie junk"]
    works = [
        (killers[n // 10 % len(killers)] if n % 10 == 0 else b"array %d" % (1000 + 997 * n))
        for n in range(count)
    ]
    works = [work % n if b"%d" in work else work for n, work in enumerate(works)]
    outcomes = run_each(pool, works, 8)
    for number, (work, outcome) in enumerate(zip(works, outcomes, strict=True)):
        if number % 10 == 0:
            assert isinstance(outcome, DecoderDiedError), (work, outcome)
        else:
            assert isinstance(outcome, np.ndarray), (work, outcome)
            assert outcome.shape == (1000 + 997 * number,)
            assert (outcome == 7).all()


def test_a_tenth_are_killers(pool: Pool) -> None:
    besieged(pool, 100)
    assert pool.alive == 2


@pytest.mark.slow
def test_a_tenth_of_a_thousand_are_killers() -> None:
    before = descriptors()
    pool = Pool()
    besieged(pool, 1000)
    until(lambda: len(worker_pids(pool)) == 2)
    pids = worker_pids(pool)
    pool.close()
    gc.collect()
    assert not any(map(is_alive, pids))
    assert descriptors() == before
