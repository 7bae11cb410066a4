"""Image readers, one file each."""
