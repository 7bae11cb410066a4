"""Scores of instance maps, one file each."""
