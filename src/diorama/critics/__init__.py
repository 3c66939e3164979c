"""Every measure, with its unit and its reference. They see features and ranks, never models or files."""
