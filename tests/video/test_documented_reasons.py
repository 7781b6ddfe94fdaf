"""Every reason for reading sequentially is explained in the guide."""

import re
from pathlib import Path

import pytest

from mmmedia.video import decoders
from mmmedia.video.decoders.bitstreams import structure

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "video-decoding.md"
DECODERS = Path(decoders.__file__).parent


def reasons() -> set[str]:
    """What the code can refuse with: constants of `structure`, and literals everywhere else."""
    found = {value for name, value in vars(structure).items() if name.isupper() and isinstance(value, str)}
    for module in DECODERS.rglob("*.py"):
        text = module.read_text(encoding="utf-8")
        found.update(re.findall(r'CannotSeekError\("([^"]+)"\)', text))
        found.update(re.findall(r'reason = "([^"]+)"', text))
        found.update(re.findall(r'stats\.count\("sequential", "([^"]+)"\)', text))
    eligible = (DECODERS / "eligible.py").read_text(encoding="utf-8")
    return found.union(re.findall(r'return "([^"]+)"', eligible))


@pytest.mark.skipif(not GUIDE.exists(), reason="needs the source tree")
def test_the_guide_lists_exactly_these() -> None:
    """The table has a row for each reason, and none that no longer exists."""
    table = GUIDE.read_text(encoding="utf-8").partition("| reason |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|-]+) \|", table, re.MULTILINE)
    listed = {reason.strip() for row in rows for reason in row.split(",")}
    assert len(reasons()) > 20
    assert listed == reasons()
