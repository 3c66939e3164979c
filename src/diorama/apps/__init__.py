"""What people touch: thin over the front door."""
