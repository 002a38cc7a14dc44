"""Batch inference on Ray Data: a pool of engine actors over a folder of problems, and the engines themselves."""
