"""What the service and the loop share on disk."""
