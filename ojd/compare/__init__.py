"""Systems over the same streams, side by side: the paper's tables."""
