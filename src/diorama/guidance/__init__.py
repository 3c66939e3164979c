"""How the ask is pressed: denoisers in, denoisers out."""
