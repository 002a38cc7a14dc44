"""python -m jobs.report RECIPE.yaml [key=value ...]

Write summary.json, report.html and the figures of a run.
"""

from .cli import run_pipeline

if __name__ == "__main__":
    run_pipeline(("report",), str(__doc__))
