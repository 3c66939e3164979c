"""Each system's own point as an experiment that can come out otherwise: one file per claim, named by its slug, and the harness."""
