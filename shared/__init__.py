"""What the command line and the workers agree on."""
