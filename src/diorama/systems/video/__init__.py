"""Sentences, pictures and frames to clips."""
