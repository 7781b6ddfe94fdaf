"""The one fork hook."""

import gc
import os

from mmmedia.work import fork
from support.forking import holds_in_child


class _Keeper:
    def __init__(self) -> None:
        self.process = os.getpid()

    def begin(self) -> None:
        self.process = os.getpid()


def test_a_forked_child_begins_afresh():
    keeper = _Keeper()
    fork.afresh_in_child(keeper.begin)
    assert holds_in_child(lambda: keeper.process == os.getpid())
    assert keeper.process == os.getpid()


def test_what_is_registered_by_a_method_is_not_kept_alive():
    keepers = [_Keeper() for _ in range(200)]
    before = len(fork._beginnings)
    for keeper in keepers:
        fork.afresh_in_child(keeper.begin)
    del keeper, keepers
    gc.collect()
    assert len(fork._beginnings) <= before
