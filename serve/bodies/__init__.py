"""What comes in and goes out: schemas, errors, JSON, Parquet."""
