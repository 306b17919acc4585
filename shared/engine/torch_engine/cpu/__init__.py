"""What only processors have: weights packed by oneDNN, products of integers, threads held on cores."""
