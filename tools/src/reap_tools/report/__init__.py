"""The report: one page about the output folder of `reap_dist run` (read, draw, lay out)."""
