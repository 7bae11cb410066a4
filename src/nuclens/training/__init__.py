"""Losses, augmentation, schedules and the loop (torch)."""

from importlib.util import find_spec

from nuclens.core.errors import MissingExtraError

if absent := [name for name in ("torch", "lightning", "safetensors") if find_spec(name) is None]:
    raise MissingExtraError(f"training needs {', '.join(absent)}; `pip install 'nuclens[train]'` brings them")
