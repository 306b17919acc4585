"""What others do, to compare with: none of it is Baton's, and nothing of Baton depends on it."""
