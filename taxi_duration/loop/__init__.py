"""Look, decide, act; time travel; trace."""
