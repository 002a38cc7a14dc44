"""Measures of a response: what seeing a solution did to it. Functions of text, token ids and log-probs alone.

One file per measure; `offsft.measures.row` puts them together for one response, `offsft.measures.sums` for a run.
"""
