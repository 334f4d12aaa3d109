"""What is wrong with this machine, the settings and the stores, and the remedy of each."""
