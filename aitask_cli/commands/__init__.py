"""One module per command; `aitask_cli.main.COMMANDS` names them."""
