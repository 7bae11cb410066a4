"""Overlays and curves (no torch)."""
