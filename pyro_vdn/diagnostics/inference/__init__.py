"""Whether the inference is good: evidence, k-hat, simulation, NUTS, amortization."""
