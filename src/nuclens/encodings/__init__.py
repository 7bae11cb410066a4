"""Encodings (labels to targets and back), one file each."""
