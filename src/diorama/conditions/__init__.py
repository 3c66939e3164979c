"""Encoders of what the user asked for."""
