"""A fleet on a Ray cluster: streams and teachers as actors. Needs ojd[ray]."""
