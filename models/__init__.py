"""Complete Pyro models built from distributional neurons."""
