"""What differs between families: one small file each, found by its name."""
