"""The mathematics of generation: scalings, levels, losses, solvers."""
