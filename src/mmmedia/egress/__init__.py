"""What a stranger's URL may make this process connect to.

`addresses` says what an address is, `policy` whether it may be reached, `resolve` asks for the addresses of a
name. `blocking` and `on_loop` hold the connections of urllib3 and aiohttp to it; what depends on these
libraries stands there and nowhere else. They are imported when one half is first used.
"""

from mmmedia.egress.addresses import (
    BLOCKED_PORTS,
    Address,
    Judgement,
    Reach,
    embedded_ipv4,
    judge,
    literal_address,
    normal_host,
)
from mmmedia.egress.policy import EgressPolicy, Journey, current_journey

__all__ = [
    "BLOCKED_PORTS",
    "Address",
    "EgressPolicy",
    "Journey",
    "Judgement",
    "Reach",
    "current_journey",
    "embedded_ipv4",
    "judge",
    "literal_address",
    "normal_host",
]
