from __future__ import annotations

from nuclens.testing.protocols import ProtocolContract


class TestCellvit(ProtocolContract):
    name = "cellvit"


class TestHovernet(ProtocolContract):
    name = "hovernet"


class TestMonuseg(ProtocolContract):
    name = "monuseg"


class TestPannuke(ProtocolContract):
    name = "pannuke"


class TestPannukePlus(ProtocolContract):
    name = "pannuke_plus"


class TestSemantic(ProtocolContract):
    name = "semantic"


class TestStardist(ProtocolContract):
    name = "stardist"
