"""The machine's side of aitask: the worker that turns tasks into answers."""
