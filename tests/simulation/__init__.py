"""Deployment, log and loop on a disk that fails and a clock of our own, replayable by seed."""
