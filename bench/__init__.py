"""Benchmarks: `make bench` runs them all, side by side with what they are compared with, in one run."""
