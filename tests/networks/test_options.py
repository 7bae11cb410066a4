"""Options of networks as recipes and cards hold them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from pydantic import TypeAdapter, ValidationError

from nuclens.core.kinds import Kind

NETWORKS: Kind[Any] = Kind("nuclens.networks")
WRONG: dict[str, dict[str, Any]] = {
    "attention_unet": {"start": "64"},
    "deeplabv3": {"layers": 51},
    "flexible_unet": {"activation": "tanh"},
    "hovernet": {"mode": "slow"},
    "inception_unet": {"pooling": "mean"},
    "nuclens": {"size": "huge"},
    "refinenet": {"light": 1},
    "resunet": {"depth": 4.5},
    "stardist_unet": {"grid": 3},
    "tsfdnet": {"backbone": "b8"},
    "unet": {"bottleneck": "long"},
    "unetplusplus": {"widths": [256, 128]},
    "vgg_unet": {"layers": 13},
}


@pytest.mark.parametrize("name", NETWORKS.names())
def test_defaults_pass_the_check_of_recipes(name: str) -> None:
    """They survive JSON, and a wrong one is told before anything is built."""
    options = NETWORKS.get(name).options
    check = TypeAdapter(options)
    assert check.validate_json(json.dumps(asdict(options())), strict=True) == options()
    with pytest.raises(ValidationError, match=next(iter(WRONG[name]))):
        check.validate_json(json.dumps(WRONG[name]), strict=True)
