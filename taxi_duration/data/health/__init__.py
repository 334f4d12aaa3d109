"""A month's health: what its columns say beside what each row says."""
