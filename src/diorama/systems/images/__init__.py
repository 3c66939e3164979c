"""Systems whose output is a picture."""
