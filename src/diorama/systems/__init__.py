"""One short file per system, only parts imported."""
