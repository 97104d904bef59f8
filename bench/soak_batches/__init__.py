"""`make soak`, its second part: batches under way while everything that runs them is killed; see `__main__`."""
