"""The currency of Nuclens: types, frames, tiles, label maps, outlines (no torch, no image or model files)."""
