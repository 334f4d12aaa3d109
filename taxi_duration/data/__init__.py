"""From source bytes to counted trips."""
