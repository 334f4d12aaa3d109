"""One run of the notebooks' chain."""
