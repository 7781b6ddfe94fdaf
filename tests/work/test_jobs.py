"""The decode workers: a budget that is kept, turns that are fair, errors that stop, threads that end."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmmedia.work import cores as cores_module, jobs as pool_module
from mmmedia.work.cores import _cgroup_quota, usable_cores
from mmmedia.work.jobs import DecodePool, decode_pool, worker_count
from mmmedia.work.threads import Threads
from support.waiting import wait_until


@pytest.fixture(params=[1, 2, 3])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", str(request.param))
    return int(request.param)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mmmedia-decode"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Workers end with the work."""
    yield
    wait_until(lambda: not threads())


def refuse(*_: object) -> None:
    raise RuntimeError("can't start new thread")


class Gauge:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self.inside = self.most = self.ran = 0
        self._lock = threading.Lock()

    def __enter__(self) -> "Gauge":
        with self._lock:
            self.inside += 1
            self.ran += 1
            self.most = max(self.most, self.inside)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.inside -= 1


class TestBudget:
    def test_jobs_run_once_each(self, workers: int) -> None:
        """All jobs of a request have run when it returns."""
        done: list[int] = []
        DecodePool().run([lambda n=n: done.append(n) for n in range(50)])
        assert sorted(done) == list(range(50))

    def test_no_jobs(self) -> None:
        """A request without work returns at once."""
        DecodePool().run([])

    def test_budget_over_all_requests(self, workers: int) -> None:
        """However many requests there are, no more jobs run at once than there are workers."""
        decode_pool, gauge = DecodePool(), Gauge()

        def job() -> None:
            with gauge:
                time.sleep(0.0005)

        requests = [threading.Thread(target=decode_pool.run, args=([job] * 12,)) for _ in range(16)]
        for request in requests:
            request.start()
        for request in requests:
            request.join(30)
        assert gauge.ran == 16 * 12
        assert gauge.most <= workers
        assert decode_pool.queue_length == 0

    def test_all_workers_serve_one_request(self, workers: int) -> None:
        """A request alone uses the whole budget: its jobs meet each other."""
        barrier = threading.Barrier(workers, timeout=30)
        DecodePool().run([barrier.wait] * workers)
        assert not barrier.broken

    def test_a_burst_after_idleness(self, workers: int) -> None:
        """Threads that ended are started anew, as many as before."""
        decode_pool = DecodePool()
        for _ in range(20):
            barrier = threading.Barrier(workers, timeout=30)
            decode_pool.run([barrier.wait] * workers)
        wait_until(lambda: decode_pool._threads == 0)


class TestFairness:
    def test_turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With one worker the jobs of requests alternate, whoever came first and has most."""
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "1")
        decode_pool, order = DecodePool(), []
        gate, started = threading.Event(), threading.Event()

        def hold() -> None:
            started.set()
            gate.wait(30)

        requests = [threading.Thread(target=decode_pool.run, args=([hold],))]
        requests[0].start()
        assert started.wait(30)
        for name in "abc":
            jobs = [lambda name=name: order.append(name)] * (20 if name == "a" else 3)
            requests.append(threading.Thread(target=decode_pool.run, args=(jobs,)))
            requests[-1].start()
            wait_until(lambda: decode_pool.queue_length == len(requests))
        gate.set()
        for request in requests:
            request.join(30)
        assert "".join(order) == "abcabcabc" + 17 * "a"


class TestErrors:
    def test_first_error_is_raised(self, workers: int) -> None:
        """The error of a job is the request's, as it is."""
        error = RuntimeError("of a job")

        def fail() -> None:
            raise error

        with pytest.raises(RuntimeError) as raised:
            DecodePool().run([fail])
        assert raised.value is error

    def test_the_other_jobs_are_not_begun(self, workers: int) -> None:
        """After an error at most those jobs run that other workers had already taken."""
        gauge = Gauge()

        def job() -> None:
            with gauge:
                raise ValueError

        with pytest.raises(ValueError):
            DecodePool().run([job] * 1000)
        assert 1 <= gauge.ran <= workers

    def test_it_waits_for_those_under_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An error is raised when nobody works on the request any more: its array may be freed."""
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "2")
        gauge, both = Gauge(), threading.Barrier(2, timeout=30)

        def slow() -> None:
            with gauge:
                both.wait()
                time.sleep(0.05)

        def fail() -> None:
            both.wait()
            raise ValueError

        with pytest.raises(ValueError):
            DecodePool().run([slow, fail])
        assert gauge.ran == 1
        assert gauge.inside == 0

    def test_other_requests_go_on(self, workers: int) -> None:
        """One request's error is not another's."""
        decode_pool, outcomes = DecodePool(), []

        def fail() -> None:
            raise ValueError

        def request(jobs: list[Any]) -> None:
            try:
                decode_pool.run(jobs)
                outcomes.append("fine")
            except ValueError:
                outcomes.append("failed")

        requests = [
            threading.Thread(target=request, args=([fail] * 3 if n % 2 else [lambda: None] * 30,))
            for n in range(10)
        ]
        for thread in requests:
            thread.start()
        for thread in requests:
            thread.join(30)
        assert Counter(outcomes) == {"fine": 5, "failed": 5}

    def test_jobs_that_can_not_be_made(self, workers: int) -> None:
        """An iterator of jobs that raises fails its own request."""

        def jobs() -> Iterator[Any]:
            yield lambda: None
            raise KeyError("next job")

        with pytest.raises(KeyError, match="next job"):
            DecodePool().run(jobs())

    def test_interruption_of_the_waiting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C while a request waits: its other jobs are not begun, and those under way end first."""
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "1")
        decode_pool, gauge = DecodePool(), Gauge()

        def job() -> None:
            with gauge:
                if gauge.ran == 1:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    wait_until(lambda: decode_pool._waiting[0].error is not None)

        with pytest.raises(KeyboardInterrupt):
            decode_pool.run([job] * 100)
        assert gauge.ran == 1
        assert gauge.inside == 0

    def test_threads_that_can_not_be_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine out of threads is an error, not a hang, and no budget is lost by it."""
        decode_pool = DecodePool()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            patch.setattr(pool_module, "threads", Threads())  # in which none waits for work
            with pytest.raises(RuntimeError, match="start"):
                decode_pool.run([lambda: None])
        done: list[int] = []
        decode_pool.run([lambda: done.append(1)] * 5)
        assert len(done) == 5


class TestWorkerCount:
    def test_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The setting, under both prefixes; else the usable cores."""
        assert worker_count() == usable_cores()
        monkeypatch.setenv("VLLM_VIDEO_DECODE_WORKERS", "5")
        assert worker_count() == 5
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "7")
        assert worker_count() == 7
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "-1")
        assert worker_count() == usable_cores()

    @pytest.mark.parametrize(
        ("files", "expected"),
        [
            ({"cpu.max": "max 100000\n"}, None),
            ({"cpu.max": "150000 100000\n"}, 1.5),
            ({"cpu.max": "400000 100000"}, 4.0),
            ({"cpu.max": "0 100000"}, None),
            ({"cpu.max": "100000 0"}, None),
            ({"cpu.max": "some nonsense"}, None),
            ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.5),
            ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
            ({"cpu/cpu.cfs_quota_us": "250000\n"}, None),
            ({}, None),
        ],
    )
    def test_quota_of_the_control_group(
        self, tmp_path: Path, files: dict[str, str], expected: float | None
    ) -> None:
        """Version 2 and version 1; nonsense is no quota."""
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        assert _cgroup_quota(tmp_path) == expected

    @pytest.mark.parametrize(
        ("cores", "quota", "expected"),
        [(8, None, 8), (8, 2.0, 2), (8, 2.6, 3), (8, 0.1, 1), (2, 16.0, 2), (1, None, 1)],
    )
    def test_usable_cores(
        self, monkeypatch: pytest.MonkeyPatch, cores: int, quota: float | None, expected: int
    ) -> None:
        """The fewer of the affinity mask and the quota, at least one."""
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        monkeypatch.setattr(cores_module, "_cgroup_quota", lambda: quota)
        assert usable_cores() == expected

    def test_a_platform_without_affinity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All cores then."""
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(cores_module, "_cgroup_quota", lambda: None)
        monkeypatch.setattr(os, "cpu_count", lambda: 6)
        assert usable_cores() == 6
        monkeypatch.setattr(os, "cpu_count", lambda: None)
        assert usable_cores() == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_amid_work_can_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the threads and the lock were doing at the fork: the child has workers of its own."""
    monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "2")
    gate, started = threading.Event(), threading.Barrier(3, timeout=30)

    def hold() -> None:
        started.wait()
        gate.wait(30)

    busy = threading.Thread(target=decode_pool.run, args=([hold, hold],))
    busy.start()
    started.wait()
    with decode_pool._lock:
        child = os.fork()
        if not child:
            signal.alarm(20)
            done: list[int] = []
            decode_pool.run([lambda: done.append(1)] * 3)
            os._exit(0 if len(done) == 3 else 1)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        gate.set()
        busy.join(30)
    assert os.waitstatus_to_exitcode(status) == 0
