"""`make soak`: jobs under load while everything that runs them is killed; see `bench.soak.__main__`."""
