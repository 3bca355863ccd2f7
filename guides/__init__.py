"""Program-level guides for models with distributional neurons."""
