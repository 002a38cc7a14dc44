"""The rewriting stage: the cascade over every problem of a data set, on Ray Data."""
