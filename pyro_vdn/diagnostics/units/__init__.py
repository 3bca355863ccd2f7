"""What units do: statistics, use, collapse, history, persistence, and their figures."""
