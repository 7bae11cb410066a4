"""Losses: pure functions of raw head, target and weight, a file for each family; `terms` gives them names."""
