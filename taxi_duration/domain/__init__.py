"""What a ride, a zone, a month, a pickup time and a version are."""
