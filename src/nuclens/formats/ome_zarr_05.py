"""OME-Zarr 0.5 of labels, which is Zarr 3: see `nuclens.formats._ome_zarr`."""

from nuclens.formats._ome_zarr import OmeZarr

PLUGIN = OmeZarr(".v05.ome.zarr", (".v05.ome.zarr",), "0.5")
