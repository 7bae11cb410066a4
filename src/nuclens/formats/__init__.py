"""Result formats, written and read, one file each."""
