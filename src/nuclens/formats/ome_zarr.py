"""OME-Zarr 0.4 of labels, as most programs read it: see `nuclens.formats._ome_zarr`."""

from nuclens.formats._ome_zarr import OmeZarr

PLUGIN = OmeZarr(".ome.zarr", (".ome.zarr", ".zarr"), "0.4")
