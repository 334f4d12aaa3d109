"""Names and versions, in MLflow and in models/."""
