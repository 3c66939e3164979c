"""What is seen from anywhere: cameras, and later what they look at."""
