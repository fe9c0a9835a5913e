"""What differs between families: one small file each, found through `workers.families.registry`."""
