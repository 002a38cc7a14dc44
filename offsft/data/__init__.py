"""The intake of problems: files, layouts, validation, benchmark suites, overlap with held-out data."""
