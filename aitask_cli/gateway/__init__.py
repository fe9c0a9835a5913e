"""The optional HTTP gateway: the same submission and the same database, for other programs."""
