"""The plan: everything that decides a result, and nothing else; the same plan gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from nuclens.core.card import Card
from nuclens.core.errors import ResolutionError
from nuclens.core.tiling import Box

HALO_UM = 20.0  # above the farthest centre-to-rim distance of 31,029 annotated nuclei, 70 px at 0.25 mpp
MARGIN_PX = 32  # how far tiles reach beyond the image: mirrored pixels, the same for every tiling
MPP_RANGE = (0.05, 4.0)
_INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "sse4_2")


@dataclass(frozen=True, slots=True)
class Plan:
    """How one image is segmented.

    Attributes:
        image: SHA-256 of the input.
        model: SHA-256 of the model.
        engine: Engine and version.
        precision: Of the network's arithmetic.
        instructions: Class of the processor: another class may round otherwise.
        core_px: Side of a tile's core on the working grid.
        halo_px: Margin the network reads around it.
        mpp: Micrometres per input pixel, None where unknown.
        scale: Working pixels per input pixel.
        offset_px: Row and column of the working grid where a core begins.
        region: Box of level 0 whose nuclei are wanted, None for all.
        tissue: Digest of the mask whose nuclei are wanted, empty for all.
        origin: Row and column of the results' frame where level 0 begins.
        reader: What decodes the input: of a coarser level another may give other pixels.
    """

    image: str
    model: str
    engine: str
    precision: str
    instructions: str
    core_px: int
    halo_px: int
    mpp: float | None
    scale: float
    offset_px: tuple[int, int] = (0, 0)
    region: Box | None = None
    tissue: str = ""
    origin: tuple[int, int] = (0, 0)
    reader: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """All of it as text."""
        return json.dumps(asdict(self), sort_keys=True)

    def nucleus_ids(self, anchors: Int32[np.ndarray, "n 2"]) -> UInt8[np.ndarray, "n 16"]:
        """UUIDs of nuclei by the pixel that anchors them: equal in every run over this image with this model.

        Source: RFC 9562, name-based UUIDs (version 5).
        """
        space = hashlib.sha256(f"nuclens {self.image} {self.model}".encode()).digest()[:16]
        digests = [hashlib.sha1(space + b"%d,%d" % (row, column)).digest()[:16] for row, column in anchors.tolist()]
        ids = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16).copy()
        ids[:, 6] = ids[:, 6] & 0x0F | 0x50
        ids[:, 8] = ids[:, 8] & 0x3F | 0x80
        return ids


def halo_px(card: Card) -> int:
    """Margin a model's tiles need: the largest nucleus plus the network's reach, a multiple of its stride."""
    largest = HALO_UM / card.mpp if card.mpp else HALO_UM / 0.25
    return int(-(-(largest + card.reach) // card.stride) * card.stride)


def scale_of(card: Card, mpp: float | None, name: str, power: float | None = None) -> float:
    """Working pixels per input pixel; `name` is the input in errors.

    Args:
        card: Of the model.
        mpp: Micrometres per input pixel, None where unknown.
        name: The input.
        power: Magnification of the objective that the file states, offered in errors and never assumed.

    Raises:
        ResolutionError: The model works at a resolution and the input's is unknown or implausible.
    """
    if card.mpp is None:
        return 1.0
    if mpp is None:
        hint = "give --mpp (mpp= in Python): 0.25 for a 40x scan, 0.5 for 20x"
        if power:
            # At 40x a pixel has a quarter of a micrometre, and so on.
            hint = f"objective {power:g}x: try --mpp {10 / power:.2g} (mpp= in Python)"
        raise ResolutionError(f"{name}: the file does not say how many micrometres a pixel has; {hint}")
    if not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]:
        raise ResolutionError(
            f"{name}: {mpp:g} µm per pixel is outside {MPP_RANGE[0]:g}-{MPP_RANGE[1]:g}; "
            f"give --mpp: 0.25 for 40x, 0.5 for 20x"
        )
    scale = mpp / card.mpp
    # A scanner's 0.2485 is the same magnification as 0.25: resampling would only blur.
    return 1.0 if abs(scale - 1) < 0.02 else scale


def instruction_class() -> str:
    """The widest instruction set that changes how engines round, "generic" where unknown."""
    source = Path("/proc/cpuinfo")
    text = source.read_text(encoding="utf-8", errors="replace") if source.exists() else ""
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return next((name for name in _INSTRUCTIONS if name in flags), f"generic {platform.machine()}")
