"""`python -m aitask_cli` is `aitask`."""

from aitask_cli.main import main

main()
