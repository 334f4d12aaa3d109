"""What a bundle holds and how it answers."""
