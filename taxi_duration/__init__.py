"""NYC taxi trip duration: what the notebooks, the pipeline and the service share."""
