"""Measurements on networks: one file a probe; networks and tensors in, a tidy DataFrame out."""
