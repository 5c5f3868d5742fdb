"""Running the benchmarks, their rows of evidence, and the pages that quote them."""
