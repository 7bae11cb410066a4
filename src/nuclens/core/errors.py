"""The errors Nuclens raises on purpose, with the exit code each one ends a command with.

NuclensError
├── InputError (ValueError)                    2  an argument or a setting is wrong
│   ├── ShapeError                                an array has other axes than asked for
│   ├── ResolutionError                           microns per pixel are missing or implausible
│   ├── RecipeError                               a recipe has faults
│   └── UnknownPluginError (LookupError)          no plug-in of that name
├── DataError                                  3  a file is not what it claims to be
│   ├── UnreadableImageError
│   │   └── UnsupportedImageError                 sound, but of a kind that this reader does not know
│   └── CorruptDatasetError
├── EnvironmentFault                           4  the installation lacks something
│   ├── MissingExtraError (ImportError)
│   ├── CheckpointError
│   ├── ClusterFault                              other machines do not answer, or lack something
│   ├── MemoryFault (MemoryError)                 something does not fit into memory
│   └── PluginClashError
├── DivergedError (ArithmeticError)            4  numbers of a training run are no longer finite
├── OutputError (OSError)                      4  a result cannot be written
└── PartialFailure                             5  some inputs failed, the others are done
"""

from __future__ import annotations


class NuclensError(Exception):
    """Any failure Nuclens foresees; its text says what was got, what was wanted, what to do."""

    exit_code = 1

    def __reduce__(self) -> tuple[type[NuclensError], tuple[object, ...]]:
        # As Dask takes errors from process to process, one that is a MemoryError too would not arrive otherwise.
        return type(self), self.args


class InputError(NuclensError, ValueError):
    """An argument or a setting cannot be used."""

    exit_code = 2


class ShapeError(InputError):
    """An array has other axes than asked for."""


class ResolutionError(InputError):
    """Microns per pixel are missing or implausible."""


class RecipeError(InputError):
    """A recipe has faults; all of them are in the text."""


class UnknownPluginError(InputError, LookupError):
    """No plug-in has that name."""


class DataError(NuclensError):
    """A file is not what it claims to be."""

    exit_code = 3


class UnreadableImageError(DataError):
    """An image cannot be decoded, or is too large to be."""


class UnsupportedImageError(UnreadableImageError):
    """An image is sound but of a kind that this reader does not know; another may."""


class CorruptDatasetError(DataError):
    """A data set lacks files or contradicts itself."""


class EnvironmentFault(NuclensError):
    """The installation lacks something."""

    exit_code = 4


class MissingExtraError(EnvironmentFault, ImportError):
    """An optional package is not installed; the text names the extra that brings it."""


class CheckpointError(EnvironmentFault):
    """A model or a checkpoint is incomplete or of another kind."""


class ClusterFault(EnvironmentFault):
    """Other machines do not answer, or lack what is needed."""


class MemoryFault(EnvironmentFault, MemoryError):
    """Something does not fit into memory; the text says what to lower."""


class PluginClashError(EnvironmentFault):
    """Two plug-ins have the same name."""


class DivergedError(NuclensError, ArithmeticError):
    """Numbers of a training run are no longer finite."""

    exit_code = 4


class OutputError(NuclensError, OSError):
    """A result cannot be written."""

    exit_code = 4


class PartialFailure(NuclensError):
    """Some inputs failed; the others were finished."""

    exit_code = 5
