"""python -m jobs.report RECIPE.yaml [key=value ...]

Write summary.json, report.html and the figures of a run.
"""

from jobs.command import run

if __name__ == "__main__":
    run(("report",), str(__doc__))
