"""Runtimes of exported models, one file each."""
