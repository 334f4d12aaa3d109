"""Answering: served models, log, measures."""
