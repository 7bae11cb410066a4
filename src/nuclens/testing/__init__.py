"""Public contract suites: what every plug-in of a kind must do."""
