"""Rows of files through a graph: input, shards, output, manifest."""
