"""Forked children."""

import os
import signal
import traceback
import warnings
from collections.abc import Callable


def holds_in_child(check: Callable[[], object], seconds: int = 20) -> bool:
    """Say whether a check is true in a forked child; one that hangs there is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, as there are threads
        child = os.fork()
    if not child:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            status = 0 if check() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
