"""Measurements on networks: one file per probe, networks and tensors in, a tidy DataFrame out, one row a measurement."""
