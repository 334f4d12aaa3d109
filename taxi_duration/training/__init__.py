"""Fitting: from trips to a model."""
