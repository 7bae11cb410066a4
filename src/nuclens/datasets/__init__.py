"""Data set readers, one file each."""
