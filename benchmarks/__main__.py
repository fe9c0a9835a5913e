"""`python -m benchmarks [NAME …]`: run the measures named, or all."""

from __future__ import annotations

import signal
import sys

from benchmarks.contest import contest
from benchmarks.measures import MEASURES
from benchmarks.stage import versions


def main() -> None:
    """Run measures one after another and print what they found."""
    # Ended from outside, it still ends the servers and workers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if sys.argv[1:2] == ["contest"]:
        print(versions(), flush=True)
        contest(int(sys.argv[2]) if len(sys.argv) > 2 else 3, sys.argv[3] if len(sys.argv) > 3 else "")
        return
    names = sys.argv[1:] or list(MEASURES)
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        sys.exit(f"there is no measure {unknown[0]}; there are: {', '.join(MEASURES)}")
    print(versions(), flush=True)
    for name in names:
        MEASURES[name]()
        sys.stdout.flush()


main()
