"""Systems whose output is an understanding of a picture."""
