"""Entry points for `python -m jobs.<stage>` and `ray job submit`: parse, then import, then call the library."""
