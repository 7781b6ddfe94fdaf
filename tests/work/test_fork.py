"""The one fork hook."""

import gc
import os

from mmmedia.work import fork


class _Keeper:
    def __init__(self) -> None:
        self.process = os.getpid()

    def begin(self) -> None:
        self.process = os.getpid()


def _in_child(check: object) -> bool:
    """Say whether a check holds in a forked child."""
    child = os.fork()
    if not child:
        os._exit(0 if check() else 1)  # type: ignore[operator]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_begins_afresh():
    keeper = _Keeper()
    fork.afresh_in_child(keeper.begin)
    assert _in_child(lambda: keeper.process == os.getpid())
    assert keeper.process == os.getpid()


def test_what_is_registered_by_a_method_is_not_kept_alive():
    keepers = [_Keeper() for _ in range(200)]
    before = len(fork._beginnings)
    for keeper in keepers:
        fork.afresh_in_child(keeper.begin)
    del keeper, keepers
    gc.collect()
    for _ in range(64):
        fork.afresh_in_child(_Keeper().begin)
    assert len(fork._beginnings) < before + 200
