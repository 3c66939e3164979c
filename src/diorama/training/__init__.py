"""The one training loop, its averages and its checkpoints."""
