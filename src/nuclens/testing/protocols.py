"""What every protocol has to pass: subclass `ProtocolContract`, set `name`, and let pytest collect it."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from typing import Any, ClassVar

import numpy as np

from nuclens.core.comparison import compare
from nuclens.core.kinds import Kind
from nuclens.core.protocol import AVERAGES, Measure, Protocol

_METRICS: Kind[Any] = Kind("nuclens.metrics")
_PROTOCOLS: Kind[Protocol] = Kind("nuclens.protocols")


class ProtocolContract:
    """The promises of a protocol: frozen data that names metrics, options and values there are.

    Attributes:
        name: Of the plug-in under test.
    """

    name: ClassVar[str]

    @property
    def plugin(self) -> Protocol:
        """The protocol under test."""
        return _PROTOCOLS.get(self.name)

    def test_is_frozen_data(self) -> None:
        """It can be compared, hashed and sent to another process."""
        assert pickle.loads(pickle.dumps(self.plugin)) == self.plugin
        assert hash(self.plugin) == hash(replace(self.plugin))

    def test_says_what_it_is(self) -> None:
        """Name of its file, version and source."""
        assert self.plugin.name == self.name
        assert self.plugin.version
        assert self.plugin.source

    def test_measures_exist(self) -> None:
        """Every metric, option and value it names is one, for its own types and for others."""
        for protocol in (self.plugin, self.plugin.repair(), self.plugin.with_types(("one", "other"))):
            for measure in protocol.measures:
                assert measure.average in AVERAGES
                scores = _scores(measure)
                assert {value for value, _ in measure.values} <= scores.keys()
                widths = {scores[value].size for value, _ in measure.values if scores[value].ndim == 1}
                assert widths <= {len(protocol.types)}

    def test_no_name_is_given_twice(self) -> None:
        """Headline values, values of types and matrices have names of their own."""
        for protocol in (self.plugin, self.plugin.repair()):
            shown = [(name, _scores(one)[value].ndim) for one in protocol.measures for value, name in one.values]
            assert len(set(shown)) == len(shown)

    def test_repaired_has_another_name_and_no_more_faults(self) -> None:
        """Numbers of the published script and of its repair cannot be mistaken for each other."""
        repaired = self.plugin.repair()
        assert repaired.repair() == repaired
        assert (repaired.name != self.name) == bool(self.plugin.repaired)

    def test_no_fold_tests_what_it_trained_on(self) -> None:
        """The folds of a run differ."""
        assert all(len(set(run)) == 3 for run in self.plugin.folds)

    def test_radii_follow_the_resolution(self) -> None:
        """12 px at 40x, 6 px at 20x, 3 µm elsewhere."""
        for mpp, wanted in ((0.25, 12.0), (0.2425, 12.0), (0.5, 6.0), (1.0, 3.0)):
            scaled = self.plugin.at(mpp)
            for protocol in (scaled, scaled.repair()):
                assert {value for one in protocol.measures for key, value in one.options if key == "radius_px"} <= {
                    wanted
                }


def _scores(measure: Measure) -> dict[str, np.ndarray]:
    plugin = _METRICS.get(measure.metric)
    assert dict(measure.options).keys() <= {field.name for field in fields(plugin)}
    metric = replace(plugin, **dict(measure.options))
    labels = np.zeros((4, 4), np.int32)
    return {name: np.asarray(value) for name, value in metric.scores(metric.parts(compare(labels, labels))).items()}
