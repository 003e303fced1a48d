"""What is measured after training, beside the scores."""
