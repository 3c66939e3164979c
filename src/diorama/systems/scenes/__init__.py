"""Systems whose output is a scene: seen from anywhere."""
