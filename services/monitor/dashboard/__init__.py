"""The operator's one page: what it shows, how it stays fresh, and the orders its buttons give."""
