"""Backbones and their layers; they know nothing of noise laws, text or files."""
