"""Real checkpoints in: what diffusers and transformers wrote, as parts of the house. Nothing else imports those two."""
