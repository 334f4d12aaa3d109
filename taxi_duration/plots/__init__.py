"""The figures of the notebooks: each takes a table and returns a figure with titles and units."""
