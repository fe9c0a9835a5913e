"""`python -m workers FAMILY…` is `aitask worker FAMILY…`."""

import os
import sys

os.execv(sys.executable, [sys.executable, "-m", "aitask_cli", "worker", *sys.argv[1:]])
