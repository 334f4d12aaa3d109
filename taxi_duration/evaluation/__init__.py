"""Judgements on arrays, beyond noise."""
