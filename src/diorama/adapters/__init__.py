"""What is added to a trained network, which stays as it is."""
