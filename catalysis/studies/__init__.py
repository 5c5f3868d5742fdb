"""What is asked of sites and of a trained model, a file for each question."""
