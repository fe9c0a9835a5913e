"""The person's side of aitask: the command line, its views and the local stack."""
