"""python -m jobs.pipeline RECIPE.yaml [key=value ...]

The whole method: rewrite, train, evaluate, report. Starts a local Ray, or joins the cluster that is given.
Running the same command again continues what is unfinished and repeats nothing that is done.
"""

from jobs.command import run_pipeline

if __name__ == "__main__":
    run_pipeline(("rewrite", "train", "evaluate", "report"), str(__doc__))
