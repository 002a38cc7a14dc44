"""python -m jobs.pipeline RECIPE.yaml [key=value ...]

Run the whole method: rewrite, train, evaluate, report. Starts a local Ray, or joins a given cluster.
Running the same command again continues unfinished work and repeats nothing that is done.
"""

from .cli import run_pipeline

if __name__ == "__main__":
    run_pipeline(("rewrite", "train", "evaluate", "report"), str(__doc__))
